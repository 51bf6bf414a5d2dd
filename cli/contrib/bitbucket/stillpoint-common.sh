# What the stillpoint strategies share. Sourced by them; defines functions and nothing else happens.
#
# Variables of the vars file:
#   STILLPOINT_REPOSITORY, STILLPOINT_PASSWORD_FILE (or whatever else `stillpoint` reads)   where backups go; exported here
#   STILLPOINT_PROGRAM     the program, when it is not in the path
#
# Each backup is a snapshot with two tags: what it is (kind=disk, kind=database, kind=archive, kind=warm), and its label,
# SNAPSHOT_TAG_VALUE, by which it is restored.

[ -z "${STILLPOINT_COMMON_IS_SOURCED:-}" ] || return 0
STILLPOINT_COMMON_IS_SOURCED=true

STILLPOINT_PROGRAM=${STILLPOINT_PROGRAM:-stillpoint}
check_command "${STILLPOINT_PROGRAM}"
check_command "jq"

# Older frames give no label: it must be the same in every sub-shell, so it is made now.
SNAPSHOT_TAG_PREFIX=${SNAPSHOT_TAG_PREFIX:-${INSTANCE_NAME:-bitbucket}-}
SNAPSHOT_TAG_VALUE=${SNAPSHOT_TAG_VALUE:-${SNAPSHOT_TAG_PREFIX}${TIMESTAMP:-$(date +%Y%m%d-%H%M%S)}}

for stillpoint_name in $(compgen -v STILLPOINT_); do
    case "${stillpoint_name}" in
        STILLPOINT_PROGRAM | STILLPOINT_COMMON_IS_SOURCED) ;;
        *) export "${stillpoint_name?}" ;;
    esac
done
unset stillpoint_name

function stillpoint_quiet {
    [ "${BITBUCKET_VERBOSE_BACKUP:-}" = "true" ] || echo "--quiet"
}

# Everything that can fail without a repository, before anything is locked.
function stillpoint_check {
    run "${STILLPOINT_PROGRAM}" snapshots --quiet --tag "kind=none" >/dev/null || bail \
        "The stillpoint repository cannot be used: look at STILLPOINT_REPOSITORY and the passphrase in '${BACKUP_VARS_FILE:-the vars file}'"
}

# Lines of `LABEL ID` of one kind whose label begins with our prefix, newest label first.
function stillpoint_list { # KIND
    "${STILLPOINT_PROGRAM}" snapshots --json --tag "kind=$1" | jq -r --arg prefix "${SNAPSHOT_TAG_PREFIX}" '
        select(.message_type == "snapshot") | .id as $id | .tags[]
        | select((startswith("kind=") | not) and startswith($prefix)) | "\(.) \($id)"' | sort -r
}

# The id of the newest snapshot of a kind and label; nothing when there is none.
function stillpoint_find { # KIND LABEL
    "${STILLPOINT_PROGRAM}" snapshots --json --tag "kind=$1,$2" |
        jq -r 'select(.message_type == "snapshot") | .id' | tail -n 1
}

# Asks for a label that there is; without one it says what there is, and ends.
function stillpoint_choose { # KIND LABEL
    if [ -z "$2" ]; then
        print "Usage: $0 <backup-label>"
        print "Available backups:"
        stillpoint_list "$1" | while read -r label _; do print "${label}"; done
        bail "Please choose a backup to restore"
    fi
    STILLPOINT_CHOSEN=$(stillpoint_find "$1" "$2")
    if [ -z "${STILLPOINT_CHOSEN}" ]; then
        error "There is no backup '$2'"
        print "Available backups:"
        stillpoint_list "$1" | while read -r label _; do print "${label}"; done
        bail "Please choose a backup to restore"
    fi
}

# Takes the snapshot of a backup. One that is not complete is taken back, and is a failure.
function stillpoint_save { # KIND ARGUMENTS...
    local kind=$1 status=0
    shift
    run "${STILLPOINT_PROGRAM}" snapshot $(stillpoint_quiet) --tag "kind=${kind},${SNAPSHOT_TAG_VALUE}" "$@" || status=$?
    if [ "${status}" -ne 0 ]; then
        error "Saving the ${kind} backup '${SNAPSHOT_TAG_VALUE}' failed with status ${status}"
        stillpoint_drop "${kind}" || error "What was saved of it could not be removed"
    fi
    return "${status}"
}

# Removes the backup of this run.
function stillpoint_drop { # KIND
    local id
    id=$(stillpoint_find "$1" "${SNAPSHOT_TAG_VALUE}")
    [ -z "${id}" ] || run "${STILLPOINT_PROGRAM}" forget --quiet "${id}"
}

# Keeps the newest KEEP_BACKUPS of a kind; 0 keeps all. Space is freed by `stillpoint prune`, when it suits.
function stillpoint_clean { # KIND
    local old
    if [ "${KEEP_BACKUPS:-0}" -gt 0 ]; then
        old=$(stillpoint_list "$1" | tail -n "+$((KEEP_BACKUPS + 1))" | cut -d ' ' -f 2)
        [ -z "${old}" ] || run "${STILLPOINT_PROGRAM}" forget --quiet ${old}
    fi
}

# Forgets what was saved before locks, only to make what follows short.
function stillpoint_clean_warm {
    local warm
    warm=$(stillpoint_list warm | cut -d ' ' -f 2)
    [ -z "${warm}" ] || run "${STILLPOINT_PROGRAM}" forget --quiet ${warm}
}

# A path as it stands in a pattern.
function stillpoint_literal { # PATH
    printf '%s' "$1" | sed 's/[][*?!\\]/\\&/g'
}

# STILLPOINT_DISK becomes the arguments that name the home, the data stores, and what of them is left out.
function stillpoint_disk {
    local home=${BITBUCKET_HOME%/} store pattern repository
    STILLPOINT_DISK=("${home}")
    local patterns=(/caches/ /log/ /tmp /.lock)
    if [ "${INSTANCE_TYPE:-}" != "bitbucket-mesh" ]; then
        patterns+=('/data/db.*' '/shared/data/db.*' /search/data/ /shared/search/data/ /export/ /shared/export/
            '/plugins/.*/' /shared/.lock)
    fi
    for repository in "${BITBUCKET_BACKUP_EXCLUDE_REPOS[@]}"; do
        patterns+=("/shared/data/repositories/${repository}")
    done
    for pattern in "${patterns[@]}"; do
        STILLPOINT_DISK+=(--exclude "$(stillpoint_literal "${home}")${pattern}")
    done
    for store in "${BITBUCKET_DATA_STORES[@]}"; do
        STILLPOINT_DISK+=("${store%/}")
        for repository in "${BITBUCKET_BACKUP_EXCLUDE_REPOS[@]}"; do
            STILLPOINT_DISK+=(--exclude "$(stillpoint_literal "${store%/}")/repositories/*/*/${repository}")
        done
    done
}

# Before the lock: checks, and saves once, so that little is left to do under it. Files may vanish meanwhile.
function stillpoint_prepare_disk {
    check_config_var "BITBUCKET_HOME"
    if [ "${BACKUP_ZERO_DOWNTIME:-}" = "true" ]; then
        bail "Snapshots of a running instance are not atomic: BACKUP_ZERO_DOWNTIME=true cannot be used with the strategy 'stillpoint'"
    fi
    stillpoint_check
    stillpoint_disk
    local status=0
    run "${STILLPOINT_PROGRAM}" snapshot --quiet --tag "kind=warm,${SNAPSHOT_TAG_VALUE}" "${STILLPOINT_DISK[@]}" || status=$?
    case "${status}" in
        0 | 3) ;;
        *) bail "Saving '${BITBUCKET_HOME}' for the first time failed with status ${status}" ;;
    esac
}

function stillpoint_backup_disk {
    stillpoint_disk
    stillpoint_save disk "${STILLPOINT_DISK[@]}"
}

# Refuses a place that holds anything.
function stillpoint_empty { # DIRECTORY
    if [ -d "$1" ] && [ -n "$(ls -A "$1")" ]; then
        bail "Cannot restore over existing contents of '$1'. Please rename or delete it first"
    fi
    mkdir -p "$1"
}

function stillpoint_prepare_restore_disk { # LABEL
    check_config_var "BITBUCKET_HOME"
    stillpoint_check
    stillpoint_choose disk "$1"
    STILLPOINT_RESTORE_DISK=${STILLPOINT_CHOSEN}
    local place
    for place in "${BITBUCKET_HOME%/}" "${BITBUCKET_DATA_STORES[@]}"; do
        stillpoint_empty "${place}"
    done
}

function stillpoint_restore_disk {
    local place
    for place in "${BITBUCKET_HOME%/}" "${BITBUCKET_DATA_STORES[@]}"; do
        run "${STILLPOINT_PROGRAM}" restore $(stillpoint_quiet) "${STILLPOINT_RESTORE_DISK}:${place%/}" --target "${place%/}"
    done
}

function stillpoint_no_standby {
    bail "Disaster recovery is not available with the strategy 'stillpoint'"
}
