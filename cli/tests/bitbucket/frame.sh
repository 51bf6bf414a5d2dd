#!/bin/bash
# The least of the frame that Bitbucket's backup scripts are, written for the tests of the strategies: the same order, helpers,
# variables and exit codes. Usage: frame.sh backup | frame.sh restore [LABEL]
# GENERATION=2 calls the functions of 2016 to 2018, GENERATION=3 those of later scripts.
set -e
SCRIPT_DIR=$(dirname "$0")

function print { printf '%s\n' "$*"; }
function log { printf '[%s] %5s: %s\n' "${BITBUCKET_URL}" "$1" "${*:2}"; }
function info { log INFO "$@"; }
function success { log SUCC "$@"; }
function error { log ERROR "$@" >&2; }
function debug { [ "${BITBUCKET_VERBOSE_BACKUP}" != "true" ] || log DEBUG "$@"; }
function bail { error "$@"; exit 99; }
function no_op { :; }
function run { [ "${BITBUCKET_VERBOSE_BACKUP}" != "true" ] || log DEBUG "Running: $*" >&2; "$@"; }
function check_command { type -P "$1" >/dev/null || bail "Unable to find $1, please install it"; }
function check_var { [ -n "${!1}" ] || bail "${2:-The variable '$1' is missing}"; }
function check_config_var { check_var "$1" "The configuration variable '$1' is required"; }
function ensure_empty_directory { [ ! -d "$1" ] || [ -z "$(ls -A "$1")" ] || bail "'$1' is not empty"; }

cleanup_routines=()
function run_cleanup { local routine; for routine in "${cleanup_routines[@]}"; do ${routine}; done; }
function add_cleanup_routine { cleanup_routines=("$1" "${cleanup_routines[@]}"); trap run_cleanup EXIT INT ABRT PIPE; }
function remove_cleanup_routine {
    local kept=() routine
    for routine in "${cleanup_routines[@]}"; do [ "${routine}" = "$1" ] || kept+=("${routine}"); done
    cleanup_routines=("${kept[@]}")
}

BACKUP_VARS_FILE=${BACKUP_VARS_FILE:-${SCRIPT_DIR}/vars.sh}
TIMESTAMP=$(date +"%Y%m%d-%H%M%S")
source "${BACKUP_VARS_FILE}"
SNAPSHOT_TAG_PREFIX=${SNAPSHOT_TAG_PREFIX:-${INSTANCE_NAME}-}
SNAPSHOT_TAG_VALUE=${SNAPSHOT_TAG_VALUE:-${SNAPSHOT_TAG_PREFIX}${TIMESTAMP}}

function source_strategy { # TYPE NAME
    [ -e "${SCRIPT_DIR}/$2-$1.sh" ] || bail "There is no strategy $2-$1.sh"
    source "${SCRIPT_DIR}/$2-$1.sh"
}
function none { no_op; }
for name in backup_db prepare_backup_db prepare_restore_db restore_db cleanup_incomplete_db_backup cleanup_old_db_backups cleanup_db_backups; do
    eval "function ${name} { no_op; }"
done
[ -z "${BACKUP_ARCHIVE_TYPE}" ] || source_strategy "${BACKUP_ARCHIVE_TYPE}" archive
[ -z "${BACKUP_DATABASE_TYPE}" ] || source_strategy "${BACKUP_DATABASE_TYPE}" database
if [ "${GENERATION}" = 2 ]; then
    source_strategy "${BACKUP_HOME_TYPE}" home
    disk=home
    clean=(cleanup_db_backups cleanup_home_backups)
else
    source_strategy "${BACKUP_DISK_TYPE}" disk
    disk=disk
    clean=(cleanup_old_db_backups cleanup_old_disk_backups)
fi

function call { curl -L -s -f -u "${BITBUCKET_BACKUP_USER}:${BITBUCKET_BACKUP_PASS}" -H "Accept: application/json" -H "Content-type: application/json" "$@"; }
function lock_bitbucket {
    token=$(call -X POST "${BITBUCKET_URL}/mvc/maintenance/lock" | jq -r .unlockToken)
    [ -n "${token}" ] || bail "Locking failed"
    add_cleanup_routine unlock_bitbucket
    info "locked with '${token}'"
}
function backup_start {
    call -X POST -H "X-Atlassian-Maintenance-Token: ${token}" "${BITBUCKET_URL}/mvc/admin/backups?external=true" >/dev/null
}
function backup_wait {
    local states=
    until [ "${states}" = "DRAINED DRAINED" ]; do
        states=$(call -H "X-Atlassian-Maintenance-Token: ${token}" "${BITBUCKET_URL}/mvc/maintenance" | jq -r '."db-state" + " " + ."scm-state"')
    done
}
function update_backup_progress {
    call -X POST "${BITBUCKET_URL}/mvc/admin/backups/progress/client?token=${token}&percentage=$1" >/dev/null
}
function unlock_bitbucket {
    remove_cleanup_routine unlock_bitbucket
    call -X DELETE "${BITBUCKET_URL}/mvc/maintenance/lock?token=${token}" && info "Bitbucket instance unlocked"
}

function backup {
    info "Preparing for backup"
    prepare_backup_db
    "prepare_backup_${disk}"
    lock_bitbucket
    backup_start
    backup_wait
    (backup_db) &
    local db=$!
    ("backup_${disk}") &
    local files=$! failed=
    { wait ${db} && update_backup_progress 50; } || failed="${failed} db"
    { wait ${files} && update_backup_progress 50; } || failed="${failed} disk"
    if [ -n "${failed}" ]; then
        unlock_bitbucket
        if [ "${GENERATION}" != 2 ]; then
            [[ "${failed}" = *db* ]] || cleanup_incomplete_db_backup
            [[ "${failed}" = *disk* ]] || cleanup_incomplete_disk_backup
        fi
        error "Backing up failed:${failed}"
        exit 1
    fi
    update_backup_progress 100
    unlock_bitbucket
    success "Successfully completed the backup"
    for routine in "${clean[@]}"; do "${routine}"; done
    if [ -n "${BACKUP_ARCHIVE_TYPE}" ]; then
        archive_backup
        cleanup_old_archives
    fi
}

function restore { # LABEL
    if [ -n "${BACKUP_ARCHIVE_TYPE}" ]; then
        prepare_restore_archive "$1"
    else
        BITBUCKET_RESTORE_HOME=${BITBUCKET_BACKUP_HOME}
    fi
    "prepare_restore_${disk}" "$1"
    prepare_restore_db "$1"
    [ -z "${BACKUP_ARCHIVE_TYPE}" ] || restore_archive
    if [ "${GENERATION}" = 2 ]; then restore_home; else restore_disk "$1"; fi
    restore_db
    success "Successfully restored"
}

"$@"
