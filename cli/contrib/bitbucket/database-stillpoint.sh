# A backup and restore strategy for a PostgreSQL database (BACKUP_DATABASE_TYPE=stillpoint): its dump is streamed into the same
# repository and never lies on a disk. It is not compressed, so that equal parts of two dumps are stored once.

check_command "pg_dump"
check_command "psql"

source "${SCRIPT_DIR}/stillpoint-common.sh"

# STILLPOINT_POSTGRES becomes the arguments that every program of PostgreSQL takes.
function stillpoint_postgres {
    check_config_var "BITBUCKET_DB"
    STILLPOINT_POSTGRES=(--no-password)
    [ -z "${POSTGRES_HOST:-}" ] || STILLPOINT_POSTGRES+=("--host=${POSTGRES_HOST}")
    [ -z "${POSTGRES_PORT:-}" ] || STILLPOINT_POSTGRES+=("--port=${POSTGRES_PORT}")
    [ -z "${POSTGRES_USERNAME:-}" ] || STILLPOINT_POSTGRES+=("--username=${POSTGRES_USERNAME}")
    [ -z "${PGPASSWORD:-}" ] || export PGPASSWORD
}

function stillpoint_database_exists {
    local names
    names=$(psql "${STILLPOINT_POSTGRES[@]}" --dbname=postgres --tuples-only --no-align --command='select datname from pg_database') ||
        bail "The database server does not answer"
    printf '%s\n' "${names}" | grep --quiet --line-regexp --fixed-strings -- "${BITBUCKET_DB}"
}

function prepare_backup_db {
    stillpoint_postgres
    stillpoint_check
    stillpoint_database_exists || bail "There is no database '${BITBUCKET_DB}'"
}

function backup_db {
    stillpoint_postgres
    stillpoint_save database --stdin-filename bitbucket.sql --stdin-from-command -- \
        pg_dump "${STILLPOINT_POSTGRES[@]}" --format=plain --no-owner "${BITBUCKET_DB}"
}

function prepare_restore_db {
    stillpoint_postgres
    stillpoint_check
    stillpoint_choose database "${1:-}"
    STILLPOINT_RESTORE_DB=${STILLPOINT_CHOSEN}
    if stillpoint_database_exists; then
        bail "Cannot restore over the existing database '${BITBUCKET_DB}'. Please rename or drop it first"
    fi
}

function restore_db {
    run psql "${STILLPOINT_POSTGRES[@]}" --quiet --set=ON_ERROR_STOP=1 --dbname=postgres --set=name="${BITBUCKET_DB}" \
        <<<"create database :\"name\" encoding 'UTF8' template template0;"
    (
        set -o pipefail
        "${STILLPOINT_PROGRAM}" dump "${STILLPOINT_RESTORE_DB}" bitbucket.sql |
            run psql "${STILLPOINT_POSTGRES[@]}" --quiet --set=ON_ERROR_STOP=1 --single-transaction --dbname="${BITBUCKET_DB}" >/dev/null
    )
}

function cleanup_incomplete_db_backup {
    stillpoint_drop database
}

function cleanup_old_db_backups {
    stillpoint_clean database
}

# The name that the scripts of 2016 to 2018 call.
function cleanup_db_backups {
    stillpoint_clean database
}

function promote_db {
    stillpoint_no_standby
}

function setup_db_replication {
    stillpoint_no_standby
}
