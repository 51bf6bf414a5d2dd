# A backup and restore strategy for the home directory and the data stores (BACKUP_DISK_TYPE=stillpoint; Bitbucket 6 and later).
# Needs no BACKUP_ARCHIVE_TYPE: each backup stands in the repository as it is.

source "${SCRIPT_DIR}/stillpoint-common.sh"

function prepare_backup_disk {
    stillpoint_prepare_disk
}

function backup_disk {
    stillpoint_backup_disk
}

function prepare_restore_disk {
    stillpoint_prepare_restore_disk "${1:-}"
}

function restore_disk {
    stillpoint_restore_disk
}

function cleanup_incomplete_disk_backup {
    stillpoint_drop disk
}

function cleanup_old_disk_backups {
    stillpoint_clean disk
    stillpoint_clean_warm
}

function promote_home {
    stillpoint_no_standby
}

function replicate_disk {
    stillpoint_no_standby
}

function setup_disk_replication {
    stillpoint_no_standby
}
