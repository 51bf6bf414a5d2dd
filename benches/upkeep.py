#!/usr/bin/env python3
"""Copy, parity and check, beside what restic needs for the same.

    upkeep.py PROGRAM SOURCE WORK [--snapshots 10]

Takes snapshots of a copy of SOURCE, 1 % of whose files are rewritten between two, with stillpoint and restic, and
then: check of structure and of all data; copy of all snapshots into a new repository and once more when all are there;
parity added, two packs lost, healed. The copies and what was healed must restore equal.
"""
import argparse, json, os, random, shutil, subprocess, sys
from pathlib import Path
sys.dont_write_bytecode = True
from prune_under_load import Run, newest, same, size_mib


def change(tree, rng):
    """Rewrites 1 % of the files: a kilobyte in the middle of each."""
    files = [p for p in tree.rglob("*") if p.is_file() and not p.is_symlink()]
    for path in rng.sample(files, max(1, len(files) // 100)):
        with open(path, "r+b") as file:
            file.seek(path.stat().st_size // 2)
            file.write(rng.randbytes(1000))


def row(what, mine, theirs):
    """One line of the table; `theirs` may be None."""
    other = f"{theirs.wall:.2f} | {theirs.cpu:.2f} | {theirs.peak:.0f} | {mine.cpu / theirs.cpu:.2f}" if theirs \
        else "- | - | - | -"
    print(f"| {what} | {mine.wall:.2f} | {mine.cpu:.2f} | {mine.peak:.0f} | {other} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("source")
    parser.add_argument("work")
    parser.add_argument("--snapshots", type=int, default=10)
    options = parser.parse_args()
    program = shutil.which(options.program) or sys.exit(f"no program {options.program}")
    work = Path(options.work).resolve()
    if work.exists():
        sys.exit(f"{work} exists: give a folder that can be made")
    work.mkdir(parents=True)
    tree = work / "tree"
    shutil.copytree(options.source, tree, symlinks=True)
    env = dict(os.environ, STILLPOINT_PASSWORD="bench", RESTIC_PASSWORD="bench", RESTIC_FROM_PASSWORD="bench",
               STILLPOINT_CACHE_DIR=str(work / "cache"), RESTIC_CACHE_DIR=str(work / "restic-cache"),
               STILLPOINT_REPOSITORY=str(work / "stillpoint"), RESTIC_REPOSITORY=str(work / "restic"),
               STILLPOINT_FROM_PASSWORD="bench", STILLPOINT_FROM_REPOSITORY=str(work / "stillpoint"))
    Run([program, "init"], env).well()
    Run(["restic", "init"], env).well()
    rng = random.Random(11)
    for number in range(options.snapshots):
        if number:
            change(tree, rng)
        Run([program, "snapshot", tree], env).well()
        Run(["restic", "backup", tree], env).well()
    print(f"{options.snapshots} snapshots; stillpoint {size_mib(work / 'stillpoint'):.0f} MiB, "
          f"restic {size_mib(work / 'restic'):.0f} MiB\n")
    print("| step | stillpoint wall s | CPU s | peak MiB | restic wall s | CPU s | peak MiB | CPU ratio |")
    print("|---|---|---|---|---|---|---|---|")
    row("check", Run([program, "check"], env).well(), Run(["restic", "check"], env).well())
    row("check, all data read", Run([program, "check", "--read-data"], env).well(),
        Run(["restic", "check", "--read-data"], env).well())

    there = dict(env, STILLPOINT_REPOSITORY=str(work / "copy"), RESTIC_REPOSITORY=str(work / "restic-copy"))
    Run([program, "init"], there).well()
    Run(["restic", "init", "--from-repo", work / "restic", "--copy-chunker-params"], there).well()
    mine, theirs = [program, "copy"], ["restic", "copy", "--from-repo", work / "restic"]
    row(f"copy of {options.snapshots} snapshots", Run(mine, there).well(), Run(theirs, there).well())
    row("copy again, nothing new", Run(mine, there).well(), Run(theirs, there).well())
    back = work / "back"
    Run([program, "restore", f"latest:{tree}", "--target", back], there).well()
    same(tree, back) or sys.exit("the copy restores to something else")
    shutil.rmtree(back)

    before = size_mib(work / "stillpoint")
    row("parity add", Run([program, "parity", "add"], env).well(), None)
    after = size_mib(work / "stillpoint")
    packs = sorted(p for p in (work / "stillpoint" / "packs").rglob("*") if p.is_file())
    lost = packs[:2]
    [pack.unlink() for pack in lost]
    row(f"repair: {len(lost)} of {len(packs)} packs healed", Run([program, "repair"], env).well(), None)
    Run([program, "check", "--read-data"], env).well()
    Run([program, "restore", f"latest:{tree}", "--target", back], env).well()
    same(tree, back) or sys.exit("what was healed restores to something else")
    print(f"\nparity: {after - before:.0f} MiB beside {before:.0f} MiB; copies and healed packs restore equal")


if __name__ == "__main__":
    main()
