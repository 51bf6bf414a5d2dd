# A backup and restore strategy for the home directory (BACKUP_HOME_TYPE=stillpoint; the scripts of 2016 to 2018).
# Needs no BACKUP_ARCHIVE_TYPE: each backup stands in the repository as it is.

source "${SCRIPT_DIR}/stillpoint-common.sh"

function prepare_backup_home {
    stillpoint_prepare_disk
}

function backup_home {
    stillpoint_backup_disk
}

function prepare_restore_home {
    stillpoint_prepare_restore_disk "${1:-}"
}

function restore_home {
    stillpoint_restore_disk
}

function cleanup_home_backups {
    stillpoint_clean disk
    stillpoint_clean_warm
}

function promote_home {
    stillpoint_no_standby
}

function replicate_home {
    stillpoint_no_standby
}

function setup_home_replication {
    stillpoint_no_standby
}
