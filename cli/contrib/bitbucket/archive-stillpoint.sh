# An archive strategy (BACKUP_ARCHIVE_TYPE=stillpoint): the working copies that other strategies made go to the repository, where
# only what changed takes space. For all generations that have archive strategies.

source "${SCRIPT_DIR}/stillpoint-common.sh"

function archive_backup {
    check_config_var "BITBUCKET_BACKUP_ROOT"
    stillpoint_save archive "${BITBUCKET_BACKUP_ROOT%/}"
}

# Where a working copy will be found below the place that the archive is restored to.
function stillpoint_restored { # WORKING-COPY
    printf '%s' "${BITBUCKET_RESTORE_ROOT}${1#"${BITBUCKET_BACKUP_ROOT%/}"}"
}

function prepare_restore_archive {
    check_config_var "BITBUCKET_BACKUP_ROOT"
    stillpoint_check
    stillpoint_choose archive "${1:-}"
    STILLPOINT_RESTORE_ARCHIVE=${STILLPOINT_CHOSEN}
    BITBUCKET_RESTORE_ROOT=$(mktemp -d /tmp/bitbucket.diy-restore.XXXXXX)
    BITBUCKET_RESTORE_DB=$(stillpoint_restored "${BITBUCKET_BACKUP_DB:-${BITBUCKET_BACKUP_ROOT%/}/bitbucket-db}")
    BITBUCKET_RESTORE_HOME=$(stillpoint_restored "${BITBUCKET_BACKUP_HOME:-${BITBUCKET_BACKUP_ROOT%/}/bitbucket-home}")
    BITBUCKET_RESTORE_DATA_STORES=$(stillpoint_restored "${BITBUCKET_BACKUP_DATA_STORES:-${BITBUCKET_BACKUP_ROOT%/}/bitbucket-data-stores}")
}

function restore_archive {
    run "${STILLPOINT_PROGRAM}" restore $(stillpoint_quiet) "${STILLPOINT_RESTORE_ARCHIVE}:${BITBUCKET_BACKUP_ROOT%/}" \
        --target "${BITBUCKET_RESTORE_ROOT}"
}

function cleanup_old_archives {
    stillpoint_clean archive
}
