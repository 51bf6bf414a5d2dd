#!/usr/bin/env python3
"""How long an application is locked: the published backup procedure, restic in its place, stillpoint.

    locked_time.py PROGRAM SIMULATOR WORK [--files 100000] [--mib 2048] [--rows 2500000] [--writers 4] [--runs 5]

Builds an instance in WORK: a home directory, a PostgreSQL database, and writers that put the same number into a file and a row,
one after the other, through the gate of a simulated Bitbucket instance (SIMULATOR: the testkit's example `bitbucket`), whose
lock holds them. Then each procedure in turn, with the writers running:

published   rsync; lock; rsync again and pg_dump at the same time; unlock
restic      backup; lock; backup again and pg_dump at the same time; unlock
stillpoint  capture

The time from the answer to the lock request to the answer to the unlock is measured at the instance. What was saved is restored,
files and database, and the numbers are compared: each writer's last file must be its last row, with no row missing. A pair
that is not consistent ends the run.
"""
import argparse, base64, fcntl, json, os, random, shutil, signal, statistics, subprocess, sys, threading, time
import urllib.request
from pathlib import Path

NOBODY = 65534


def run(args, **more):
    """Runs a command that must succeed."""
    done = subprocess.run(list(map(str, args)), capture_output=True, text=True, **more)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, args))}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


class Database:
    """A PostgreSQL server of its own, on a socket in its folder."""

    def __init__(self, folder, rows):
        bins = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
        self.bin = bins[-1] if bins else sys.exit("PostgreSQL's programs are missing: apt-get install postgresql")
        folder.mkdir()
        os.chown(folder, NOBODY, NOBODY)
        self.folder, self.data = folder, folder / "data"
        self.env = dict(os.environ, PGHOST=str(folder), PGUSER="postgres", PGDATABASE="shop", LC_ALL="C.UTF-8")
        self.as_server([self.bin / "initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "-N"])
        options = f"-k {folder} -c listen_addresses= -c fsync=off -c max_wal_size=4GB"
        self.as_server([self.bin / "pg_ctl", "-D", self.data, "-w", "-l", folder / "log", "-o", options, "start"])
        run([self.bin / "createdb", "shop"], env=self.env)
        self.sql("CREATE TABLE ballast AS SELECT i AS id, md5(i::text) AS a, md5((i * 7)::text) AS b "
                 f"FROM generate_series(1, {rows}) AS i; ALTER TABLE ballast ADD PRIMARY KEY (id);"
                 "CREATE TABLE seen (writer int, number bigint, PRIMARY KEY (writer, number));")

    def as_server(self, args):
        run(["setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", *args], cwd="/tmp",
            stdin=subprocess.DEVNULL)

    def sql(self, text, database="shop"):
        return run([self.bin / "psql", "-qAtX", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", text], env=self.env)

    def mib(self):
        return int(self.sql("SELECT pg_database_size('shop')")) >> 20

    def stop(self):
        self.as_server([self.bin / "pg_ctl", "-D", self.data, "-m", "immediate", "stop"])


class Writer(threading.Thread):
    """Puts number after number into a file and a row, while the gate is open."""

    def __init__(self, number, home, gates, database, pause):
        super().__init__(daemon=True)
        self.number, self.gates, self.pause = number, gates, pause
        self.folder = home / "shared" / f"writer-{number}"
        self.folder.mkdir(parents=True)
        self.psql = subprocess.Popen([database.bin / "psql", "-qAtX"], env=database.env, text=True, bufsize=1,
                                     stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.count, self.going = 0, True

    def enter(self):
        with open(self.gates / "scm.latch") as latch:
            fcntl.flock(latch, fcntl.LOCK_SH)
            work = open(self.gates / "scm.work")
            fcntl.flock(work, fcntl.LOCK_SH)
        return work

    def run(self):
        while self.going:
            work = self.enter()
            self.count += 1
            (self.folder / f"{self.count % 100}").write_text(f"{self.count}\n")
            self.psql.stdin.write(f"INSERT INTO seen VALUES ({self.number}, {self.count}) RETURNING number;\n")
            self.psql.stdin.flush()
            self.psql.stdout.readline()
            work.close()
            time.sleep(self.pause)
        self.psql.stdin.close()
        self.psql.wait()


class Instance:
    """The simulated instance; notes when each call was answered."""

    def __init__(self, program, gates, drain_ms):
        args = [program, "--gate", gates, "--password-env", "INSTANCE_PASSWORD", "--drain-ms", drain_ms]
        self.process = subprocess.Popen(list(map(str, args)), text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        env=dict(os.environ, INSTANCE_PASSWORD="secret"))
        self.url = self.process.stdout.readline().strip()
        self.calls = []
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        for line in self.process.stdout:
            self.calls.append((time.monotonic(), line.split()))

    def call(self, method, path, token=None):
        request = urllib.request.Request(self.url + path, method=method)
        request.add_header("Authorization", "Basic " + base64.b64encode(b"admin:secret").decode())
        if token:
            request.add_header("X-Atlassian-Maintenance-Token", token)
        with urllib.request.urlopen(request) as reply:
            text = reply.read()
        return json.loads(text) if text else None

    def lock(self):
        """Locks and drains, as the published scripts do."""
        token = self.call("POST", "/mvc/maintenance/lock")["unlockToken"]
        self.call("POST", "/mvc/admin/backups?external=true", token)
        while True:
            status = self.call("GET", "/mvc/maintenance", token)
            if status["db-state"] == status["scm-state"] == "DRAINED":
                self.drained = time.monotonic()
                return token

    def unlock(self, token):
        self.call("POST", f"/mvc/admin/backups/progress/client?token={token}&percentage=100")
        self.call("DELETE", f"/mvc/maintenance/lock?token={token}")

    def locked_seconds(self):
        """From the last lock to the last unlock that succeeded, once that was seen."""
        while True:
            at = {call[0]: when for when, call in list(self.calls) if call[1].startswith("2")}
            if "unlock" in at and at["unlock"] > at["lock"]:
                return at["unlock"] - at["lock"]
            time.sleep(0.001)


def build_home(home, files, mib, rng):
    """Files of one size in 200 folders, half of them compressible."""
    size = max(1, mib * 2**20 // files)
    for number in range(files):
        folder = home / "shared" / "data" / f"{number % 200:03}"
        if number < 200:
            folder.mkdir(parents=True)
        half = size // 2
        (folder / f"{number:07}").write_bytes(rng.randbytes(half) + b"stillpoint %09d " % number * (half // 21 + 1))


def consistent(home, database, name, writers):
    """Each writer's last file is its last row, and no row is missing; gives the numbers."""
    found = {}
    for line in database.sql("SELECT writer, max(number), count(*) FROM seen GROUP BY writer", name).splitlines():
        writer, last, count = map(int, line.split("|"))
        if last != count:
            sys.exit(f"{name}: writer {writer} has {count} rows up to {last}")
        found[writer] = last
    for writer in range(writers):
        files = [int(p.read_text() or 0) for p in (home / "shared" / f"writer-{writer}").iterdir()]
        if max(files, default=0) != found.get(writer, 0):
            return False
    return True


class Bench:
    def __init__(self, options):
        self.options, self.work = options, Path(options.work).resolve()
        if self.work.exists():
            sys.exit(f"{self.work} exists: give a folder that can be made")
        self.work.mkdir(parents=True)
        os.chmod(self.work, 0o755)
        self.home, self.gates = self.work / "home", self.work / "gates"
        self.gates.mkdir()
        build_home(self.home, options.files, options.mib, random.Random(3))
        self.database = Database(self.work / "postgres", options.rows)
        self.instance = Instance(options.simulator, self.gates, options.drain_ms)
        self.writers = [Writer(number, self.home, self.gates, self.database, options.pause)
                        for number in range(options.writers)]
        [writer.start() for writer in self.writers]
        self.env = dict(self.database.env, STILLPOINT_REPOSITORY=str(self.work / "stillpoint"),
                        STILLPOINT_PASSWORD="bench", STILLPOINT_LOCK_PASSWORD="secret",
                        STILLPOINT_CACHE_DIR=str(self.work / "cache"), STILLPOINT_STATE_DIR=str(self.work / "state"),
                        RESTIC_REPOSITORY=str(self.work / "restic"), RESTIC_PASSWORD="bench",
                        RESTIC_CACHE_DIR=str(self.work / "restic-cache"))

    def dump(self, target):
        return subprocess.Popen([self.database.bin / "pg_dump", "-Fd", "-j", "2", "-f", target], env=self.env)

    def published(self, number):
        copy, dump = self.work / "published", self.work / f"published-db-{number}"
        rsync = ["rsync", "-a", "--delete", f"{self.home}/", f"{copy}/"]
        run(rsync)
        token = self.instance.lock()
        dumping = self.dump(dump)
        run(rsync)
        dumping.wait() == 0 or sys.exit("pg_dump failed")
        self.instance.unlock(token)
        return self.instance.locked_seconds(), copy, dump

    def restic(self, number):
        dump, back = self.work / f"restic-db-{number}", self.work / "restic-back"
        backup = ["restic", "backup", "-q", self.home]
        run(backup, env=self.env)
        token = self.instance.lock()
        dumping = self.dump(dump)
        run(backup, env=self.env)
        dumping.wait() == 0 or sys.exit("pg_dump failed")
        self.instance.unlock(token)
        seconds = self.instance.locked_seconds()
        shutil.rmtree(back, ignore_errors=True)
        run(["restic", "restore", "latest", "--target", back], env=self.env)
        return seconds, back / self.home.relative_to("/"), dump

    def stillpoint(self, number):
        program, back = self.options.program, self.work / "stillpoint-back"
        said = run([program, "capture", self.home, "--lock", "bitbucket", "--url", self.instance.url, "--user", "admin",
                    "--database", "shop=postgresql:///shop", "--json"], env=self.env)
        seconds = self.instance.locked_seconds()
        self.figures = [json.loads(line) for line in said.splitlines()][-1]["capture"]
        shutil.rmtree(back, ignore_errors=True)
        run([program, "restore", "latest", "--target", back], env=self.env)
        dumps = [p for p in back.rglob("shop*") if p.parent == back or p.is_file()]
        return seconds, back / self.home.relative_to("/"), dumps[0]

    def load(self, dump, name):
        """Restores a dump into a database of its own."""
        run([self.database.bin / "createdb", name], env=self.env)
        if dump.is_dir() or dump.read_bytes()[:5] == b"PGDMP":
            run([self.database.bin / "pg_restore", "-d", name, dump], env=self.env)
        else:
            run([self.database.bin / "psql", "-qX", "-d", name, "-f", dump], env=self.env)

    def measure(self, name):
        times, own = [], []
        for number in range(self.options.runs):
            seconds, home, dump = getattr(self, name)(number)
            times.append(seconds)
            database = f"{name}{number}"
            self.load(dump, database)
            if not consistent(home, self.database, database, len(self.writers)):
                sys.exit(f"{name}, run {number}: files and rows are of different moments")
            run([self.database.bin / "dropdb", database], env=self.env)
            shutil.rmtree(dump) if dump.is_dir() else dump.unlink()
            if name == "stillpoint":
                own.append(self.figures)
        return times, own


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("simulator")
    parser.add_argument("work")
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--mib", type=int, default=2048)
    parser.add_argument("--rows", type=int, default=2_500_000)
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument("--pause", type=float, default=0.02, help="seconds between two numbers of a writer")
    parser.add_argument("--drain-ms", type=int, default=0)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", default="published,restic,stillpoint")
    options = parser.parse_args()
    options.program = shutil.which(options.program) or sys.exit(f"no program {options.program}")
    bench = Bench(options)
    try:
        print(f"{options.files} files, {options.mib} MiB; database {bench.database.mib()} MiB; "
              f"{options.writers} writers; {options.runs} runs each\n")
        if "restic" in options.only:
            run(["restic", "init"], env=bench.env)
        run([options.program, "init"], env=bench.env)
        print("| procedure | locked: median | least | most | own (without drain): median | freeze | residual entries |")
        print("|---|---|---|---|---|---|---|")
        for name in options.only.split(","):
            times, own = bench.measure(name)
            ms = [seconds * 1000 for seconds in times]
            more = "- | - | -"
            if own:
                middle = lambda key: statistics.median(figures[key] for figures in own)
                more = f"{middle('own_ms'):.1f} ms | {middle('freeze_ms'):.1f} ms | {middle('residual_files'):.0f}"
            print(f"| {name} | {statistics.median(ms):.1f} ms | {min(ms):.1f} ms | {max(ms):.1f} ms | {more} |", flush=True)
        for writer in bench.writers:
            writer.going = False
        print(f"\nall {options.runs * len(options.only.split(','))} restored pairs of files and rows are of one moment; "
              f"writers put {sum(writer.count for writer in bench.writers)} numbers")
    finally:
        bench.database.stop()
        bench.instance.process.stdin.close()


if __name__ == "__main__":
    main()
