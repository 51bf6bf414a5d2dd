//! What a database consists of, and the statements that pin it.

use super::connect::message;
use crate::database::refused;
use crate::error::{Error, Result};
use postgres::{Client, SimpleQueryMessage, SimpleQueryRow};

/// Tables and sequences that are dumped: those of users, but for what extensions bring, and what extensions call
/// their users' settings, with the condition for it. Of generated columns there is no data.
const RELATIONS: &str = "\
WITH config AS (SELECT pg_catalog.unnest(extconfig) AS oid, pg_catalog.unnest(extcondition) AS condition FROM pg_catalog.pg_extension) \
SELECT c.relkind, pg_catalog.format('%I.%I', n.nspname, c.relname), \
  pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_table_privilege(c.oid, 'SELECT'), \
  c.relkind <> 'S' AND pg_catalog.row_security_active(c.oid), \
  (SELECT pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', ' ORDER BY a.attnum) FROM pg_catalog.pg_attribute a \
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''), \
  config.condition \
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace LEFT JOIN config ON config.oid = c.oid \
WHERE c.relkind IN ('r', 'p', 'S') AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_' \
  AND (config.oid IS NOT NULL AND c.relkind = 'r' OR NOT EXISTS (SELECT FROM pg_catalog.pg_depend d \
    WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e')) \
ORDER BY 2";

/// Changes whenever somebody changes what the database consists of; not when rows change, nor by TRUNCATE or VACUUM.
const FINGERPRINT: &str = "\
SELECT pg_catalog.concat_ws(' ', \
  (SELECT pg_catalog.concat(count(*), '/', sum(pg_catalog.hashtextextended(pg_catalog.concat_ws('/', oid, relname, relnamespace, \
    relkind, relpersistence, relowner, relacl, reloptions, relreplident, relrowsecurity, reltablespace), 0))) \
    FROM pg_catalog.pg_class WHERE oid >= 16384 AND relpersistence <> 't' AND relkind <> 't'), \
  (SELECT pg_catalog.concat(count(*), '/', sum(xmin::text::bigint)) FROM pg_catalog.pg_attribute WHERE attrelid >= 16384), \
  (SELECT pg_catalog.concat(count(*), '/', sum(xmin::text::bigint)) FROM pg_catalog.pg_attrdef), \
  (SELECT pg_catalog.concat(count(*), '/', sum(xmin::text::bigint)) FROM pg_catalog.pg_constraint WHERE oid >= 16384), \
  (SELECT pg_catalog.concat(count(*), '/', sum(xmin::text::bigint)) FROM pg_catalog.pg_index WHERE indexrelid >= 16384), \
  (SELECT pg_catalog.concat(count(*), '/', sum(xmin::text::bigint)) FROM pg_catalog.pg_inherits), \
  (SELECT pg_catalog.concat(count(*), '/', sum(xmin::text::bigint)) FROM pg_catalog.pg_namespace), \
  (SELECT pg_catalog.concat(count(*), '/', sum(xmin::text::bigint)) FROM pg_catalog.pg_policy), \
  (SELECT pg_catalog.concat(count(*), '/', sum(xmin::text::bigint)) FROM pg_catalog.pg_proc WHERE oid >= 16384), \
  (SELECT pg_catalog.concat(count(*), '/', sum(xmin::text::bigint)) FROM pg_catalog.pg_rewrite WHERE oid >= 16384), \
  (SELECT pg_catalog.concat(count(*), '/', sum(xmin::text::bigint)) FROM pg_catalog.pg_sequence), \
  (SELECT pg_catalog.concat(count(*), '/', sum(xmin::text::bigint)) FROM pg_catalog.pg_trigger), \
  (SELECT pg_catalog.concat(count(*), '/', sum(xmin::text::bigint)) FROM pg_catalog.pg_type WHERE oid >= 16384), \
  (SELECT pg_catalog.concat(count(*), '/', sum(xmin::text::bigint)) FROM pg_catalog.pg_enum), \
  (SELECT pg_catalog.concat(count(*), '/', sum(xmin::text::bigint)) FROM pg_catalog.pg_extension), \
  (SELECT pg_catalog.concat(count(*), '/', sum(xmin::text::bigint)) FROM pg_catalog.pg_description WHERE objoid >= 16384), \
  (SELECT count(*) FROM pg_catalog.pg_largeobject_metadata))";

/// Roles that own something or have rights in this database.
const ROLES: &str = "\
SELECT DISTINCT r.rolname FROM pg_catalog.pg_roles r WHERE r.oid IN (\
  SELECT s.refobjid FROM pg_catalog.pg_shdepend s WHERE s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass \
    AND s.dbid = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()) \
  UNION SELECT c.relowner FROM pg_catalog.pg_class c WHERE c.oid >= 16384) ORDER BY 1";

/// How many sequences are read by one statement.
const SEQUENCES_AT_ONCE: usize = 100;
/// How many names a message shows.
const SHOWN_MAX: usize = 5;

/// A table that is locked, and dumped if it holds rows itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    /// With its schema, quoted where it needs it.
    pub(super) name: String,
    /// Of its columns, separated by commas, those that hold data.
    columns: String,
    /// Which rows are dumped: a WHERE, or nothing for all.
    condition: String,
    /// Its rows lie in other tables.
    is_partitioned: bool,
}

/// What a database consists of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Catalogue {
    pub(super) tables: Vec<Table>,
    /// Names, quoted where they need it.
    pub(super) sequences: Vec<String>,
    pub(super) roles: Vec<String>,
    /// Of everything else that makes up the schema.
    pub(super) fingerprint: String,
    /// May not be read.
    forbidden: Vec<String>,
    /// Of which policies hide rows.
    filtered: Vec<String>,
}

/// A sequence as it stood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SequenceValue {
    /// Quoted where needed.
    pub(super) name: String,
    pub(super) last: String,
    pub(super) is_called: bool,
}

/// What a pin gives.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    /// What `pg_dump --snapshot` takes.
    pub(super) id: String,
    pub(super) sequences: Vec<SequenceValue>,
}

/// What came of pinning.
pub(super) enum Pin {
    Done(Snapshot),
    /// The database consists of something else by now; nothing is pinned.
    Changed(Catalogue),
}

/// Rows of each statement of a query.
fn results(client: &mut Client, query: &str) -> Result<Vec<Vec<SimpleQueryRow>>, postgres::Error> {
    let mut results = vec![Vec::new()];
    for message in client.simple_query(query)? {
        match message {
            SimpleQueryMessage::Row(row) => results.last_mut().expect("never empty").push(row),
            SimpleQueryMessage::CommandComplete(_) => results.push(Vec::new()),
            _ => {}
        }
    }
    Ok(results)
}

/// The only row of a query.
pub(super) fn row(client: &mut Client, query: &str) -> Result<Vec<String>> {
    let found = results(client, query).map_err(|error| failed("asking the server", &error))?;
    let row = found.iter().flatten().next().ok_or_else(broken)?;
    Ok((0..row.len()).map(|column| text(row, column)).collect())
}

fn text(row: &SimpleQueryRow, column: usize) -> String {
    row.try_get(column).ok().flatten().unwrap_or_default().to_owned()
}

fn is_true(row: &SimpleQueryRow, column: usize) -> bool {
    text(row, column) == "t"
}

fn broken() -> Error {
    Error::Failed("the server's answer is not what was asked for".into())
}

impl Table {
    /// What is copied, out and in again: the same columns in the same order.
    fn copied(&self) -> String {
        if self.columns.is_empty() {
            return self.name.clone();
        }
        format!("{} ({})", self.name, self.columns)
    }

    /// The statement that gives the rows of the table itself; None where it has none.
    pub(super) fn copy_out(&self) -> Option<String> {
        if self.is_partitioned {
            return None;
        }
        if self.condition.is_empty() {
            return Some(format!("COPY {} TO STDOUT", self.copied()));
        }
        let Self { name, columns, condition, .. } = self;
        Some(format!("COPY (SELECT {columns} FROM ONLY {name} {condition}) TO STDOUT"))
    }

    /// The statement that takes them.
    pub(super) fn copy_in(&self) -> String {
        format!("COPY {} FROM stdin;\n", self.copied())
    }
}

impl Catalogue {
    /// Reads the catalogue.
    ///
    /// # Errors
    /// What the server answers.
    pub(super) fn read(client: &mut Client) -> Result<Self> {
        // The fingerprint first: what changes after it is noticed by the next pin.
        let query = format!("{FINGERPRINT};\n{RELATIONS};\n{ROLES};");
        let found =
            results(client, &query).map_err(|error| failed("reading the catalogue", &error))?;
        let [fingerprint, relations, roles, ..] = found.as_slice() else { return Err(broken()) };
        let mut catalogue = Self {
            fingerprint: fingerprint.first().map(|row| text(row, 0)).ok_or_else(broken)?,
            roles: roles.iter().map(|row| text(row, 0)).collect(),
            ..Self::default()
        };
        relations.iter().for_each(|row| catalogue.add(row));
        Ok(catalogue)
    }

    fn add(&mut self, row: &SimpleQueryRow) {
        let (kind, name) = (text(row, 0), text(row, 1));
        if !is_true(row, 2) {
            self.forbidden.push(name.clone());
        }
        if is_true(row, 3) {
            self.filtered.push(name.clone());
        }
        if kind == "S" {
            return self.sequences.push(name);
        }
        let is_partitioned = kind == "p";
        self.tables.push(Table {
            name,
            columns: text(row, 4),
            condition: text(row, 5),
            is_partitioned,
        });
    }

    /// Everything may be read, and wholly, and is of a kind that is dumped.
    ///
    /// # Errors
    /// `Refused` with the names.
    pub(super) fn check(&self, user: &str) -> Result<()> {
        if !self.forbidden.is_empty() {
            return Err(refused(
                format!("{user} may not read {}", shown(&self.forbidden)),
                format!(
                    "use a role that may read everything (the owner, or: GRANT pg_read_all_data TO {user}, from PostgreSQL 14 on)"
                ),
            ));
        }
        if !self.filtered.is_empty() {
            return Err(refused(
                format!("policies hide rows of {} from {user}", shown(&self.filtered)),
                format!("use the owner or a role with BYPASSRLS (ALTER ROLE {user} BYPASSRLS)"),
            ));
        }
        if !self.fingerprint.ends_with(" 0") {
            return Err(refused(
                "the database holds large objects (lo_create), which are not dumped",
                "dump this database by a command: pg_dump --format=custom --compress=0",
            ));
        }
        Ok(())
    }

    /// Pins this instant, if the database consists of what this catalogue says; else gives what it consists of.
    ///
    /// First the locks, then the snapshot: a TRUNCATE, which no snapshot sees, comes before both or waits. All of it is
    /// one message to the server.
    ///
    /// # Errors
    /// What the server answers; nothing is pinned then.
    pub(super) fn pin(&self, client: &mut Client) -> Result<Pin> {
        match results(client, &self.statements()) {
            Ok(found) => match self.snapshot(&found)? {
                Some(snapshot) => Ok(Pin::Done(snapshot)),
                None => {
                    release(client)?;
                    Ok(Pin::Changed(Self::read(client)?))
                }
            },
            Err(error) => {
                release(client)?;
                // A table or schema that is gone: look again. Whatever else it is comes back.
                match error.code().map(postgres::error::SqlState::code) {
                    Some("42P01" | "3F000") => Ok(Pin::Changed(Self::read(client)?)),
                    _ => Err(failed("pinning an instant", &error)),
                }
            }
        }
    }

    fn statements(&self) -> String {
        let mut query = String::from("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;\n");
        if !self.tables.is_empty() {
            // A partition is in the list itself.
            let tables: Vec<_> = self.tables.iter().map(|table| table.name.as_str()).collect();
            let tables = tables.join(", ONLY ");
            query.push_str(&format!("LOCK TABLE ONLY {tables} IN ACCESS SHARE MODE;\n"));
        }
        query.push_str(&format!("SELECT pg_catalog.pg_export_snapshot();\n{FINGERPRINT};\n"));
        for some in self.sequences.chunks(SEQUENCES_AT_ONCE) {
            let read = |name| format!("SELECT last_value, is_called FROM {name}");
            query.push_str(&some.iter().map(read).collect::<Vec<_>>().join(" UNION ALL "));
            query.push_str(";\n");
        }
        query
    }

    /// What the server answered to the statements; None if it consists of something else.
    fn snapshot(&self, found: &[Vec<SimpleQueryRow>]) -> Result<Option<Snapshot>> {
        let mut found = found.iter().skip(1 + usize::from(!self.tables.is_empty()));
        let mut one = || found.next().and_then(|rows| rows.first()).map(|row| text(row, 0));
        let (id, fingerprint) = (one().ok_or_else(broken)?, one().ok_or_else(broken)?);
        if fingerprint != self.fingerprint {
            return Ok(None);
        }
        let rows: Vec<_> = found.flatten().collect();
        if rows.len() != self.sequences.len() {
            return Err(broken());
        }
        let value = |(name, row): (&String, &&SimpleQueryRow)| SequenceValue {
            name: name.clone(),
            last: text(row, 0),
            is_called: is_true(row, 1),
        };
        let sequences = self.sequences.iter().zip(&rows).map(value).collect();
        Ok(Some(Snapshot { id, sequences }))
    }
}

/// Ends the transaction, if there is one.
///
/// # Errors
/// When the connection is broken.
pub(super) fn release(client: &mut Client) -> Result<()> {
    client.batch_execute("ROLLBACK").map_err(|error| failed("giving a pin up", &error))
}

/// The error of a statement.
pub(super) fn failed(doing: &str, error: &postgres::Error) -> Error {
    let told = message(error);
    let more = match error.code().map(postgres::error::SqlState::code) {
        Some("55P03") => {
            "; somebody holds a lock on a table (a migration, or VACUUM FULL): try again later"
        }
        Some("53200") => "; more tables than the server can lock: raise max_locks_per_transaction",
        _ => "",
    };
    Error::Failed(format!("{doing}: PostgreSQL says: {told}{more}"))
}

fn shown(names: &[String]) -> String {
    let some = names.iter().take(SHOWN_MAX).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(SHOWN_MAX) {
        0 => some,
        more => format!("{some} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str) -> Table {
        Table {
            name: name.into(),
            columns: "a, \"B\"".into(),
            condition: String::new(),
            is_partitioned: false,
        }
    }

    // Locks come before the snapshot, in one message; many sequences are read by few statements.
    #[test]
    fn statements_of_a_pin() {
        let sequences = (0..101).map(|n| format!("s{n}")).collect();
        let tables = vec![table("t0"), table("t1")];
        let statements = Catalogue { tables, sequences, ..Catalogue::default() }.statements();
        let lines: Vec<&str> = statements.lines().collect();
        assert_eq!(lines.len(), 6, "{statements}");
        assert_eq!(lines[1], "LOCK TABLE ONLY t0, ONLY t1 IN ACCESS SHARE MODE;");
        assert!(lines[2].contains("pg_export_snapshot"));
        assert_eq!(lines[5], "SELECT last_value, is_called FROM s100;");
        assert_eq!(Catalogue::default().statements().lines().count(), 3);
    }

    // Rows come out and go in by the same columns; a condition needs a query, and a partitioned table has no rows.
    #[test]
    fn copies() {
        assert_eq!(table("t").copy_out().unwrap(), "COPY t (a, \"B\") TO STDOUT");
        assert_eq!(table("t").copy_in(), "COPY t (a, \"B\") FROM stdin;\n");
        let some = Table { condition: "WHERE a > 1".into(), ..table("t") };
        let query = "COPY (SELECT a, \"B\" FROM ONLY t WHERE a > 1) TO STDOUT";
        assert_eq!(some.copy_out().unwrap(), query);
        let empty = Table { columns: String::new(), ..table("t") };
        assert_eq!(empty.copy_out().unwrap(), "COPY t TO STDOUT");
        assert_eq!(Table { is_partitioned: true, ..table("t") }.copy_out(), None);
    }

    // Long lists are cut in messages.
    #[test]
    fn lists_are_cut() {
        let names: Vec<String> = (0..7).map(|n| n.to_string()).collect();
        assert_eq!(shown(&names), "0, 1, 2, 3, 4 and 2 more");
        assert_eq!(shown(&names[..2]), "0, 1");
    }
}
