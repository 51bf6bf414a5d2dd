#!/usr/bin/env python3
"""Two snapshots of a real tree and of three dumps, compared with copies kept aside.

    real_data.py PROGRAM WORK TREE... [--dumps FILE FILE FILE]

Copies the trees into WORK, takes a snapshot, changes about 1 % (edits, additions, deletions, renamed
directories, metadata), takes another. Then: `diff` must list exactly the changes, both snapshots must restore to
exactly the copies (content, type, mode, owner, times to the nanosecond, hard links, link targets, extended
attributes), and so must each dump. Exits with 1 at the first difference.
"""
import argparse, hashlib, json, os, random, shutil, stat, subprocess, sys, time
from pathlib import Path


def run(program, *args, **kwargs):
    started = time.monotonic()
    done = subprocess.run([program, *map(str, args)], capture_output=True, text=True, **kwargs)
    if done.returncode != 0:
        sys.exit(f"{args}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    print(f"$ stillpoint {' '.join(map(str, args))}   ({time.monotonic() - started:.2f} s)")
    return done.stdout


def listing(top):
    """Everything that must be equal, by path below `top`."""
    found, first_name = {}, {}
    for folder, folders, files in os.walk(os.fsencode(top)):
        for name in folders + files:
            path = os.path.join(folder, name)
            below = os.path.relpath(path, os.fsencode(top))
            meta = os.lstat(path)
            kind = stat.S_IFMT(meta.st_mode)
            body = None
            if stat.S_ISREG(meta.st_mode):
                with open(path, "rb") as file:
                    body = hashlib.blake2b(file.read(), digest_size=16).hexdigest()
            elif stat.S_ISLNK(meta.st_mode):
                body = os.readlink(path)
            xattrs = {x: os.getxattr(path, x, follow_symlinks=False)
                      for x in os.listxattr(path, follow_symlinks=False)}
            # Names of one file: the first of them in order.
            link = below
            if meta.st_nlink > 1 and not stat.S_ISDIR(meta.st_mode):
                link = first_name.setdefault((meta.st_dev, meta.st_ino), [])
                link.append(below)
            found[below] = [kind, stat.S_IMODE(meta.st_mode), meta.st_uid, meta.st_gid,
                            meta.st_mtime_ns, body, xattrs, link]
    for entry in found.values():
        if isinstance(entry[7], list):
            entry[7] = min(entry[7])
    return found


def mutate(top, rng):
    """Changes about 1 % of the entries."""
    files = sorted(p for p in Path(top).rglob("*") if p.is_file() and not p.is_symlink())
    folders = sorted(p for p in Path(top).rglob("*") if p.is_dir() and not p.is_symlink())
    rng.shuffle(files)
    share = len(files) // 300
    for path in files[:share]:  # edited in place
        body = bytearray(path.read_bytes() or b"x")
        at = rng.randrange(len(body))
        body[at:at] = rng.randbytes(rng.randrange(1, 200))
        path.write_bytes(body)
    for path in files[share:share + share // 2]:  # deleted
        path.unlink()
    for number, path in enumerate(files[2 * share:2 * share + share // 2]):  # new beside others
        (path.parent / f"new {number}\n").write_bytes(rng.randbytes(rng.randrange(20_000)))
    for path in files[3 * share:3 * share + share // 4]:  # metadata alone
        path.chmod(0o600 if rng.random() < 0.5 else 0o4755)
    for path in files[4 * share:4 * share + 20]:
        os.link(path, path.parent / "another name")
    for path in files[5 * share:5 * share + 20]:
        os.setxattr(path, "user.note", rng.randbytes(30))
    depth = lambda p: len(p.parts)
    movable = [p for p in folders if depth(p) == max(map(depth, folders)) - 3][:5]
    for path in movable:
        path.rename(path.parent / (path.name + " renamed"))


def changes(old, new):
    """Which paths a diff must name as added, removed or modified."""
    same_but_link = lambda a, b: a[:7] == b[:7]
    return {p for p in new if p not in old}, {p for p in old if p not in new}, {
        p for p in new if p in old and not same_but_link(old[p], new[p])}


def compare(expected, actual, what):
    if expected != actual:
        wrong = [p for p in set(expected) | set(actual) if expected.get(p) != actual.get(p)][:5]
        sys.exit(f"{what}: differs, for instance {[(p, expected.get(p), actual.get(p)) for p in wrong]}")
    print(f"{what}: {len(expected)} entries, all equal")


def path_of(message):
    return bytes.fromhex(message["path_bytes"]) if "path_bytes" in message else os.fsencode(message["path"])


def check_diff(program, top, old, new):
    added, removed, modified = changes(old, new)
    seen = {"added": set(), "removed": set(), "modified": set()}
    prefix = os.fsencode(os.path.relpath(top, "/")) + b"/"
    for line in run(program, "diff", "--json", "--metadata", "latest~1", "latest").splitlines():
        message = json.loads(line)
        if message["message_type"] != "change":
            continue
        path = path_of(message).strip(b"/")  # directories end in a slash
        if not path.startswith(prefix):
            continue
        sort = {"+": "added", "-": "removed"}.get(message["modifier"][0], "modified")
        seen[sort].add(path[len(prefix):])
    # A hard link more or less changes the number of links of the other names: metadata, and rightly listed.
    links = {p for p in seen["modified"] if p in old and p in new and p not in modified
             and old[p][:7] == new[p][:7]}
    for sort, expected in (("added", added), ("removed", removed), ("modified", modified)):
        actual = seen[sort] - links if sort == "modified" else seen[sort]
        if actual != expected:
            sys.exit(f"diff: {sort}: missing {list(expected - actual)[:5]}, too many {list(actual - expected)[:5]}")
    print(f"diff: exactly {len(added)} added, {len(removed)} removed, {len(modified)} modified"
          f" (and {len(links)} whose number of links changed)")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("work", type=Path)
    parser.add_argument("trees", nargs="+", type=Path)
    parser.add_argument("--dumps", nargs="*", default=[], type=Path)
    args = parser.parse_args()
    rng = random.Random(7)
    shutil.rmtree(args.work, ignore_errors=True)
    args.work.mkdir(parents=True)
    work = args.work.resolve()
    (work / "secret").write_text("only for this run\n")
    (work / "secret").chmod(0o600)
    os.environ.update(STILLPOINT_REPOSITORY=str(work / "repository"), STILLPOINT_CACHE_DIR=str(work / "cache"),
                      STILLPOINT_PASSWORD_FILE=str(work / "secret"))
    top = work / "tree"
    top.mkdir()
    for tree in args.trees:
        subprocess.run(["cp", "-a", tree, top], check=True)
    program = os.path.abspath(args.program)
    run(program, "init")
    first = listing(top)
    print(f"{len(first)} entries")
    print(run(program, "snapshot", top), end="")
    mutate(top, rng)
    second = listing(top)
    print(run(program, "snapshot", top), end="")
    check_diff(program, top, first, second)
    for spec, expected in (("latest~1", first), ("latest", second)):
        target = work / f"restored {spec}"
        run(program, "restore", f"{spec}:{top}", "--target", target)
        compare(expected, listing(target), f"restore of {spec}")
        shutil.rmtree(target)
    for dump in args.dumps:
        with open(dump, "rb") as source:
            print(run(program, "snapshot", "--stdin", "--stdin-filename", "dump.sql", "--tag", dump.stem, stdin=source), end="")
        back = subprocess.run([program, "dump", "latest", "/dump.sql"], stdout=subprocess.PIPE, check=True).stdout
        if back != dump.read_bytes():
            sys.exit(f"{dump}: the dump came back different")
        print(f"{dump.name}: {len(back)} bytes came back equal")
    print(run(program, "check", "--read-data"), end="")
    print(run(program, "stats"), end="")
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
