//! Values of rows as literals of SQL.

use mysql::consts::ColumnType;
use mysql::{Column, Row, Value};

/// The character set of what is no text.
const BINARY: u16 = 63;

/// How the values of a column are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// As the server writes it.
    Number,
    /// `0x…`
    Bytes,
    /// In quotes.
    Text,
}

/// The forms of all columns of a result.
pub(super) struct Forms(Vec<Form>);

impl Forms {
    pub(super) fn of(columns: &[Column]) -> Self {
        Self(
            columns
                .iter()
                .map(|column| form(column.column_type(), column.character_set()))
                .collect(),
        )
    }

    /// Appends a row: `(1,'a',NULL)`.
    pub(super) fn write(&self, row: &Row, out: &mut Vec<u8>) {
        for (number, form) in self.0.iter().enumerate() {
            out.push(if number == 0 { b'(' } else { b',' });
            match row.as_ref(number) {
                Some(Value::Bytes(bytes)) => write(*form, bytes, out),
                Some(Value::NULL) | None => out.extend_from_slice(b"NULL"),
                // Queries of text give bytes; anything else is exact all the same.
                Some(other) => out.extend_from_slice(other.as_sql(false).as_bytes()),
            }
        }
        out.push(b')');
    }
}

fn form(kind: ColumnType, charset: u16) -> Form {
    use ColumnType::*;
    match kind {
        MYSQL_TYPE_TINY
        | MYSQL_TYPE_SHORT
        | MYSQL_TYPE_LONG
        | MYSQL_TYPE_LONGLONG
        | MYSQL_TYPE_INT24
        | MYSQL_TYPE_DECIMAL
        | MYSQL_TYPE_NEWDECIMAL
        | MYSQL_TYPE_FLOAT
        | MYSQL_TYPE_DOUBLE
        | MYSQL_TYPE_YEAR => Form::Number,
        MYSQL_TYPE_BIT | MYSQL_TYPE_GEOMETRY => Form::Bytes,
        MYSQL_TYPE_VARCHAR
        | MYSQL_TYPE_VAR_STRING
        | MYSQL_TYPE_STRING
        | MYSQL_TYPE_TINY_BLOB
        | MYSQL_TYPE_MEDIUM_BLOB
        | MYSQL_TYPE_LONG_BLOB
        | MYSQL_TYPE_BLOB
            if charset == BINARY =>
        {
            Form::Bytes
        }
        _ => Form::Text,
    }
}

fn write(form: Form, bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    match form {
        Form::Number => out.extend_from_slice(bytes),
        Form::Bytes if bytes.is_empty() => out.extend_from_slice(b"''"),
        Form::Bytes => {
            out.extend_from_slice(b"0x");
            for byte in bytes {
                out.extend([byte >> 4, byte & 15].map(|digit| DIGITS[usize::from(digit)]));
            }
        }
        Form::Text => out.extend(literal(bytes)),
    }
}

/// Text in quotes, safe under every mode but NO_BACKSLASH_ESCAPES, which scripts switch off.
pub(super) fn literal(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 2);
    out.push(b'\'');
    for byte in text {
        match byte {
            0 => out.extend_from_slice(b"\\0"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            0x1a => out.extend_from_slice(b"\\Z"),
            b'\\' | b'\'' => out.extend([b'\\', *byte]),
            other => out.push(*other),
        }
    }
    out.push(b'\'');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    // Every kind of value has the form that reads back as the same.
    #[test]
    fn forms() {
        use ColumnType::*;
        let check = |kind, charset, bytes: &[u8], expected: &str| {
            let mut out = Vec::new();
            write(form(kind, charset), bytes, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        };
        check(MYSQL_TYPE_LONG, BINARY, b"-7", "-7");
        check(MYSQL_TYPE_BIT, BINARY, b"\x05", "0x05");
        check(MYSQL_TYPE_BLOB, BINARY, b"\x00\xfe", "0x00FE");
        check(MYSQL_TYPE_BLOB, BINARY, b"", "''");
        check(MYSQL_TYPE_BLOB, 45, b"a'\\\n\0\x1a", "'a\\'\\\\\\n\\0\\Z'");
        check(MYSQL_TYPE_DATETIME, BINARY, b"2026-01-02", "'2026-01-02'");
        check(MYSQL_TYPE_JSON, BINARY, b"{}", "'{}'");
    }
}
