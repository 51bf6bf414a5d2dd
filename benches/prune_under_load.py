#!/usr/bin/env python3
"""A prune that reclaims half of a repository: alone beside restic's and borg's, and under load.

    prune_under_load.py PROGRAM WORK [--gib 5] [--writers 4] [--peers restic,borg]

Makes a tree of incompressible files, takes a snapshot of all of it and one of half of it (a quarter of it whole
directories, a quarter every other file, so that packs must be rewritten), and forgets the first. Then:
alone: wall time, CPU, peak memory and what is left, of stillpoint and each peer on the same data;
under load: the same prune while writers take snapshots of trees of their own and a reader restores in a loop. Every
command must succeed, everything must be restored equal, and `check --read-data` must find nothing.
"""
import argparse, filecmp, json, os, random, shutil, subprocess, sys, threading, time
from pathlib import Path


class Run:
    """One finished command: wall seconds, CPU seconds, peak memory of its largest process in MiB."""

    def __init__(self, args, env, cwd=None):
        started = time.monotonic()
        with open(os.devnull, "wb") as null:
            process = subprocess.Popen(list(map(str, args)), stdout=null, stderr=subprocess.PIPE,
                                       env=env, cwd=cwd)
            errors = process.stderr.read()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        self.code = process.returncode
        self.wall = time.monotonic() - started
        self.cpu = usage.ru_utime + usage.ru_stime
        self.peak = usage.ru_maxrss / 1024
        self.args, self.errors = args, errors.decode(errors="replace")

    def well(self):
        if self.code != 0:
            sys.exit(f"{' '.join(map(str, self.args))}: exit {self.code}\n{self.errors}")
        return self


def size_mib(folder):
    return sum(p.stat().st_size for p in Path(folder).rglob("*") if p.is_file()) / 2**20


def make_tree(top, mib, seed):
    """Files of 16 KiB to 2 MiB in 64 folders; gives those that the second snapshot lacks."""
    rng = random.Random(seed)
    left, number, drop = mib * 2**20, 0, []
    while left > 0:
        length = min(left, int(2 ** rng.uniform(14, 21)))
        path = Path(top) / f"{number % 64:02}" / f"file-{number:06}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rng.randbytes(length))
        # Folders 0 to 15 go whole; of the folders 16 to 47 every other file.
        folder = number % 64
        if folder < 16 or (folder < 48 and (number // 64) % 2 == 0):
            drop.append(path)
        left -= length
        number += 1
    return drop


def same(a, b):
    found = filecmp.dircmp(a, b)
    if found.left_only or found.right_only or found.funny_files:
        return False
    _, wrong, errors = filecmp.cmpfiles(a, b, found.common_files, shallow=False)
    return not wrong and not errors and all(same(Path(a) / d, Path(b) / d) for d in found.common_dirs)


def report(name, run, before, after):
    print(f"| {name} | {run.wall:.1f} | {run.cpu:.1f} | {run.peak:.0f} | {before:.0f} | {after:.0f} |",
          flush=True)


def newest(program, env, *filters):
    listed = subprocess.run([program, "snapshots", "--json", *filters], env=env, text=True,
                            capture_output=True, check=True).stdout
    return json.loads(listed.splitlines()[-1])["id"]


def under_load(options, env, base, tree, work):
    """The prune with writers and a reader beside it."""
    stop, failures, counts = threading.Event(), [], {"snapshots": 0, "restores": 0}
    program, repo = options.program, work / "stillpoint-load"
    shutil.copytree(base, repo)
    env = dict(env, STILLPOINT_REPOSITORY=str(repo), STILLPOINT_CACHE_DIR=str(work / "cache-load"))

    def checked(run, what):
        counts[what] += run.code == 0
        if run.code != 0:
            failures.append(f"{' '.join(map(str, run.args))}: exit {run.code}: {run.errors}")

    def write(number):
        rng, own = random.Random(number), work / f"writer-{number}"
        own.mkdir()
        while not stop.is_set():
            for _ in range(8):
                (own / f"{rng.randrange(64)}").write_bytes(rng.randbytes(rng.randrange(1, 2**20)))
            checked(Run([program, "snapshot", own, "--tag", f"writer-{number}"], env), "snapshots")

    def read():
        while not stop.is_set():
            target = work / "reading"
            checked(Run([program, "restore", f"{kept}:{tree}", "--target", target], env), "restores")
            if not same(tree, target):
                failures.append("a restore beside the prune differs")
            shutil.rmtree(target)

    kept = newest(program, env)
    threads = [threading.Thread(target=write, args=(number,)) for number in range(options.writers)]
    threads.append(threading.Thread(target=read))
    [thread.start() for thread in threads]
    while counts["snapshots"] < options.writers:
        if failures:
            break
        time.sleep(0.05)
    before = size_mib(repo)
    pruned = Run([program, "prune", "--max-unused", "0%", "--keep-forgotten", "0s", "--grace", "0s"], env)
    after = size_mib(repo)
    stop.set()
    [thread.join() for thread in threads]
    pruned.well()
    report(f"stillpoint, {options.writers} writers and a reader beside it", pruned, before, after)
    for number in range(options.writers):
        own, target = work / f"writer-{number}", work / f"back-{number}"
        Run([program, "snapshot", own, "--tag", f"writer-{number}"], env).well()
        found = newest(program, env, "--tag", f"writer-{number}")
        Run([program, "restore", f"{found}:{own}", "--target", target], env).well()
        if not same(own, target):
            failures.append(f"writer {number}: its last snapshot does not restore equal")
    Run([program, "check", "--read-data"], env).well()
    print(f"\nmeanwhile: {counts['snapshots']} snapshots and {counts['restores']} restores, "
          f"{len(failures)} failures; check --read-data clean")
    if failures:
        sys.exit("\n".join(failures))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("work")
    parser.add_argument("--gib", type=float, default=5)
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument("--peers", default="restic,borg")
    options = parser.parse_args()
    options.program = shutil.which(options.program) or sys.exit(f"no program {options.program}")
    work = Path(options.work).resolve()
    if work.exists():
        sys.exit(f"{work} exists: give a folder that can be made")
    work.mkdir(parents=True)
    tree = work / "tree"
    drop = make_tree(tree, int(options.gib * 1024), 7)
    aside = work / "aside"
    env = dict(os.environ, STILLPOINT_PASSWORD="bench", RESTIC_PASSWORD="bench", BORG_PASSPHRASE="bench",
               BORG_BASE_DIR=str(work / "borg-base"), STILLPOINT_CACHE_DIR=str(work / "cache"),
               RESTIC_CACHE_DIR=str(work / "restic-cache"), STILLPOINT_REPOSITORY=str(work / "stillpoint"),
               RESTIC_REPOSITORY=str(work / "restic"), BORG_REPO=str(work / "borg"))
    tools = {"stillpoint": ([options.program, "init"], [options.program, "snapshot", tree]),
             "restic": (["restic", "init"], ["restic", "backup", tree]),
             "borg": (["borg", "init", "-e", "repokey-blake2"], ["borg", "create", "::{now:%f}", tree])}
    tools = {name: tool for name, tool in tools.items()
             if name == "stillpoint" or name in options.peers.split(",") and shutil.which(name)}
    for init, backup in tools.values():
        Run(init, env).well()
        Run(backup, env).well()
    for path in drop:
        path.unlink()
    for folder in sorted(tree.iterdir()):
        if not any(folder.iterdir()):
            folder.rmdir()
    for _, backup in tools.values():
        Run(backup, env).well()
    print("| prune of half the repository | wall s | CPU s | peak MiB | before MiB | after MiB |")
    print("|---|---|---|---|---|---|")
    Run([options.program, "forget", "latest~1"], env).well()
    base = work / "stillpoint-base"
    shutil.copytree(work / "stillpoint", base)
    before = size_mib(work / "stillpoint")
    prune = [options.program, "prune", "--max-unused", "0%", "--keep-forgotten", "0s", "--grace", "0s"]
    done = Run(prune, env).well()
    report("stillpoint", done, before, size_mib(work / "stillpoint"))
    if "restic" in tools:
        before = size_mib(work / "restic")
        done = Run(["restic", "forget", "--keep-last", "1", "--prune", "--max-unused", "0"], env).well()
        report("restic forget --prune --max-unused 0", done, before, size_mib(work / "restic"))
    if "borg" in tools:
        before = size_mib(work / "borg")
        removed = Run(["borg", "delete", "--first", "1"], env).well()
        done = Run(["borg", "compact", "--threshold", "0"], env).well()
        done.wall, done.cpu = done.wall + removed.wall, done.cpu + removed.cpu
        done.peak = max(done.peak, removed.peak)
        report("borg delete, compact --threshold 0", done, before, size_mib(work / "borg"))
    for name in tools:
        shutil.rmtree(work / name)
    under_load(options, env, base, tree, work)


if __name__ == "__main__":
    main()
