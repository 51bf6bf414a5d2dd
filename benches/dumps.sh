#!/usr/bin/env bash
# Writes three consecutive pg_dump outputs of one busy database: dumps.sh FOLDER ROWS
# Starts a private PostgreSQL from Debian's packages as an unprivileged user, on a socket below FOLDER, and stops it.
set -euo pipefail
folder=$(realpath "$1")
rows=$2
bin=$(dirname "$(find /usr/lib/postgresql -name initdb -type f | sort -V | tail -n 1)")
cluster=$(mktemp -d /tmp/stillpoint-pg.XXXXXX)

as_user() {
  if [ "$(id -u)" = 0 ]; then runuser -u postgres -- "$@"; else "$@"; fi
}
if [ "$(id -u)" = 0 ]; then chown postgres "$cluster"; fi
stop() {
  as_user "$bin/pg_ctl" -D "$cluster/db" -m immediate stop >/dev/null 2>&1 || true
  rm -rf "$cluster"
}
trap stop EXIT
cd "$cluster"

as_user "$bin/initdb" -D "$cluster/db" --locale=C -E UTF8 -A trust -U bench >/dev/null
as_user "$bin/pg_ctl" -D "$cluster/db" -w -l "$cluster/log" \
  -o "-c listen_addresses='' -c unix_socket_directories=$cluster -c fsync=off -c max_wal_size=4GB -c autovacuum_naptime=5s" start >/dev/null
sql() { as_user "$bin/psql" -h "$cluster" -U bench -d postgres -q -v ON_ERROR_STOP=1 "$@"; }
dump() { as_user "$bin/pg_dump" -h "$cluster" -U bench postgres > "$folder/$1.sql"; }

sql <<SQL
create table accounts (id bigint primary key, branch int, balance bigint, opened timestamp, holder text, note text);
insert into accounts select g, g % 997, hashint8(g)::bigint, timestamp '2020-01-01' + g * interval '37 seconds',
  md5(g::text), substr(repeat(md5((g * 7)::text) || ' ', 2), 1, 10 + abs(hashint8(g)) % 40) from generate_series(1, $rows) g;
create table history (at timestamp, account bigint, delta int, note text);
SQL
cat > "$cluster/work.sql" <<SQL
\set id random(1, $rows)
\set delta random(-5000, 5000)
begin;
update accounts set balance = balance + :delta where id = :id;
insert into history values (timestamp '2024-01-01' + :id * interval '1 second', :id, :delta, md5(:id::text));
end;
SQL
chmod 644 "$cluster/work.sql"
dump 0
for day in 1 2; do
  # Two rows in a thousand change between two dumps.
  as_user "$bin/pgbench" -h "$cluster" -U bench -n -f "$cluster/work.sql" --random-seed=$day -c 2 -t $((rows / 1000)) postgres
  dump "$day"
done
