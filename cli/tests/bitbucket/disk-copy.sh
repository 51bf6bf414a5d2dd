# The least disk strategy that makes a working copy, for the test of the archive strategy.
function prepare_backup_disk { no_op; }
function backup_disk { mkdir -p "${BITBUCKET_BACKUP_HOME}" && run cp -a "${BITBUCKET_HOME}." "${BITBUCKET_BACKUP_HOME}"; }
function prepare_restore_disk { ensure_empty_directory "${BITBUCKET_HOME}"; }
function restore_disk { mkdir -p "${BITBUCKET_HOME}" && run cp -a "${BITBUCKET_RESTORE_HOME%/}/." "${BITBUCKET_HOME}"; }
function cleanup_incomplete_disk_backup { no_op; }
function cleanup_old_disk_backups { no_op; }
