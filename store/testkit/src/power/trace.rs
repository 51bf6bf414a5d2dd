//! What strace writes, as operations on files.
//!
//! Understands exactly the calls that are asked for, in strace's `-f -xx` form, of one process with any number of threads.
//! A call that would change files below the root in a way that the model does not know is a panic, never overlooked.

use super::{Action, FileId, Files, Operation, Recording};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// What strace must be asked to trace: every call that the model knows or must refuse.
pub const STRACE_CALLS: &str = "trace=open,openat,openat2,creat,dup,dup2,dup3,fcntl,write,writev,pwrite64,pwritev,\
pwritev2,truncate,ftruncate,fallocate,rename,renameat,renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat,mkdir,\
mkdirat,rmdir,fsync,fdatasync,copy_file_range,sendfile,splice,mmap,io_uring_setup";

/// Reads a trace of a program that began with these files below the root (an absolute path without links).
///
/// # Panics
/// When a line cannot be understood, or a call below the root is not part of the model.
pub fn parse(trace: &str, root: &Path, start: Files) -> Recording {
    let known: Vec<PathBuf> = start.files.keys().cloned().collect();
    let mut names: HashMap<PathBuf, Node> = HashMap::new();
    names.insert(PathBuf::new(), Node::Folder);
    names.extend(start.folders.iter().map(|path| (path.clone(), Node::Folder)));
    let lengths = start.files.values().map(|bytes| bytes.len() as u64).collect();
    let numbered = known.iter().enumerate();
    names.extend(numbered.map(|(number, path)| (path.clone(), Node::File(FileId(number)))));
    let mut parser = Parser {
        root: root.to_owned(),
        names,
        lengths,
        open: HashMap::new(),
        operations: Vec::new(),
    };
    let mut unfinished: HashMap<&str, (usize, String)> = HashMap::new();
    // Moment 0 is before the program began.
    for (moment, line) in (1..).zip(trace.lines()) {
        let (thread, text) = line.split_once(' ').unwrap_or_else(|| panic!("no call in {line}"));
        let text = text.trim_start();
        if text.starts_with("---") || text.starts_with("+++") {
            continue;
        }
        if let Some(begin) = text.strip_suffix("<unfinished ...>") {
            unfinished.insert(thread, (moment, begin.trim_end().to_owned()));
            continue;
        }
        let (begun, call) = match text.strip_prefix("<... ") {
            None => (moment, text.to_owned()),
            Some(rest) => {
                let (_, end) = rest.split_once("resumed>").expect("strace says 'resumed'");
                let (begun, begin) = unfinished.remove(thread).expect("it began somewhere");
                (begun, begin + end)
            }
        };
        parser.call(&Call::parse(&call), begun, moment);
    }
    Recording { start, known, operations: parser.operations }
}

/// A call that returned.
#[derive(Debug)]
struct Call<'a> {
    name: &'a str,
    arguments: Vec<&'a str>,
    /// Negative where it failed; None where it never returned.
    result: Option<i64>,
}

impl<'a> Call<'a> {
    fn parse(text: &'a str) -> Self {
        let (name, rest) = text.split_once('(').unwrap_or_else(|| panic!("no call in {text}"));
        let (arguments, result) =
            rest.rsplit_once(" = ").unwrap_or_else(|| panic!("no result in {text}"));
        let arguments = arguments.trim_end().strip_suffix(')').expect("arguments end");
        let digits = result.split([' ', '<']).next().unwrap_or_default();
        let result = match digits.strip_prefix("0x") {
            Some(hex) => i64::from_str_radix(hex, 16).ok(),
            None => digits.parse().ok(),
        };
        Self { name, arguments: arguments.split(", ").collect(), result }
    }

    fn argument(&self, number: usize) -> &'a str {
        self.arguments.get(number).unwrap_or_else(|| panic!("too few arguments: {self:?}"))
    }

    fn number(&self, number: usize) -> u64 {
        let text = self.argument(number);
        text.parse().unwrap_or_else(|_| panic!("{text} is no number: {self:?}"))
    }

    fn descriptor(&self, number: usize) -> i64 {
        let text = self.argument(number);
        text.parse().unwrap_or_else(|_| panic!("{text} is no descriptor: {self:?}"))
    }

    fn bytes(&self, number: usize) -> Vec<u8> {
        let text = self.argument(number);
        let hex = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
        let hex = hex.unwrap_or_else(|| panic!("strace cut a string short: {}", self.name));
        let digits = hex.split("\\x").skip(1);
        digits.map(|digits| u8::from_str_radix(digits, 16).expect("two hex digits")).collect()
    }

    fn path(&self, number: usize) -> PathBuf {
        PathBuf::from(String::from_utf8(self.bytes(number)).expect("a path in UTF-8"))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    Folder,
    File(FileId),
}

#[derive(Debug)]
enum Open {
    Folder(PathBuf),
    File { id: FileId, offset: u64, appends: bool },
}

struct Parser {
    root: PathBuf,
    /// What the names mean now, as the running program sees it.
    names: HashMap<PathBuf, Node>,
    /// The lengths of the files now.
    lengths: Vec<u64>,
    /// What the descriptors mean; those of things outside the root are absent.
    open: HashMap<i64, Open>,
    operations: Vec<Operation>,
}

impl Parser {
    fn call(&mut self, call: &Call<'_>, begun: usize, ended: usize) {
        let Some(result) = call.result.filter(|result| *result >= 0) else { return };
        let before = self.operations.len();
        match call.name {
            "open" => self.opened(self.relative(call, None, 0), call.argument(1), result),
            "openat" => {
                self.opened(self.relative(call, Some(0), 1), call.argument(2), result);
            }
            "creat" => self.opened(self.relative(call, None, 0), "O_CREAT|O_TRUNC", result),
            "write" if call.argument(0) == "1" => {
                let text = String::from_utf8(call.bytes(1)).expect("text on standard output");
                self.operations.push(Operation { action: Action::Say(text), begun, ended });
            }
            "write" => self.written(call, result, None),
            "pwrite64" => self.written(call, result, Some(call.number(3))),
            "ftruncate" => {
                if let Some(Open::File { id, .. }) = self.open.get(&call.descriptor(0)) {
                    let (id, len) = (*id, call.number(1));
                    self.lengths[id.0] = len;
                    self.push(Action::SetLen(id, len));
                }
            }
            "fallocate" => self.reserved(call),
            "fsync" | "fdatasync" => match self.open.get(&call.descriptor(0)) {
                Some(Open::File { id, .. }) => self.push(Action::SyncFile(*id)),
                Some(Open::Folder(path)) => self.push(Action::SyncFolder(path.clone())),
                None => {}
            },
            "rename" => self.renamed(self.relative(call, None, 0), self.relative(call, None, 1)),
            "renameat" | "renameat2" => {
                assert!(
                    call.name == "renameat" || matches!(call.argument(4), "0" | "RENAME_NOREPLACE"),
                    "{call:?}"
                );
                self.renamed(self.relative(call, Some(0), 1), self.relative(call, Some(2), 3));
            }
            "link" => self.linked(self.relative(call, None, 0), self.relative(call, None, 1)),
            "linkat" => {
                self.linked(self.relative(call, Some(0), 1), self.relative(call, Some(2), 3));
            }
            "unlink" => self.removed(self.relative(call, None, 0)),
            "rmdir" => self.removed(self.relative(call, None, 0)),
            "unlinkat" => self.removed(self.relative(call, Some(0), 1)),
            "mkdir" => self.made_folder(self.relative(call, None, 0)),
            "mkdirat" => self.made_folder(self.relative(call, Some(0), 1)),
            _ => self.refuse_below_root(call),
        }
        for operation in self.operations.iter_mut().skip(before) {
            (operation.begun, operation.ended) = (begun, ended);
        }
    }

    /// Calls that are no part of the model are harmless as long as they concern nothing below the root.
    fn refuse_below_root(&self, call: &Call<'_>) {
        let is_ours = |number: usize| {
            let text = call.arguments.get(number).and_then(|text| text.parse().ok());
            text.is_some_and(|descriptor: i64| self.open.contains_key(&descriptor))
        };
        let is_path_ours = |number: usize| {
            let is_text = call.arguments.get(number).is_some_and(|text| text.starts_with('"'));
            is_text && call.path(number).starts_with(&self.root)
        };
        let concerns_us = match call.name {
            "mmap" => {
                call.argument(2).contains("PROT_WRITE")
                    && call.argument(3).contains("MAP_SHARED")
                    && is_ours(4)
            }
            "fcntl" => call.argument(1).starts_with("F_DUPFD") && is_ours(0),
            "io_uring_setup" => true,
            _ => (0..3).any(|number| is_ours(number) || is_path_ours(number)),
        };
        assert!(!concerns_us, "the model does not know {call:?}");
    }

    /// A path argument relative to the root, or None when it lies elsewhere.
    fn relative(&self, call: &Call<'_>, folder: Option<usize>, path: usize) -> Option<PathBuf> {
        let path = call.path(path);
        if path.is_absolute() {
            return path.strip_prefix(&self.root).ok().map(Path::to_path_buf);
        }
        let folder = call.argument(folder?);
        if folder == "AT_FDCWD" {
            return None;
        }
        let descriptor: i64 = folder.parse().expect("a descriptor");
        match self.open.get(&descriptor)? {
            Open::Folder(folder) => Some(folder.join(path)),
            Open::File { .. } => panic!("a file is no folder: {call:?}"),
        }
    }

    /// Adds an action; its moments are set by who asked for it.
    fn push(&mut self, action: Action) {
        self.operations.push(Operation { action, begun: 0, ended: 0 });
    }

    fn opened(&mut self, path: Option<PathBuf>, flags: &str, descriptor: i64) {
        self.open.remove(&descriptor);
        let Some(path) = path else { return };
        assert!(!flags.contains("O_TMPFILE"), "the model does not know O_TMPFILE");
        let node = match self.names.get(&path) {
            Some(node) => *node,
            None => {
                assert!(flags.contains("O_CREAT"), "{} was opened out of nothing", path.display());
                let id = FileId(self.lengths.len());
                self.lengths.push(0);
                self.names.insert(path.clone(), Node::File(id));
                self.push(Action::Create(path.clone()));
                Node::File(id)
            }
        };
        let open = match node {
            Node::Folder => Open::Folder(path),
            Node::File(id) => {
                if flags.contains("O_TRUNC") && self.lengths[id.0] > 0 {
                    self.lengths[id.0] = 0;
                    self.push(Action::SetLen(id, 0));
                }
                Open::File { id, offset: 0, appends: flags.contains("O_APPEND") }
            }
        };
        self.open.insert(descriptor, open);
    }

    fn written(&mut self, call: &Call<'_>, result: i64, at: Option<u64>) {
        let Some(open) = self.open.get_mut(&call.descriptor(0)) else { return };
        let Open::File { id, offset, appends } = open else { panic!("{call:?} into a folder") };
        let count = usize::try_from(result).expect("not negative");
        let mut bytes = call.bytes(1);
        bytes.truncate(count);
        assert_eq!(bytes.len(), count, "strace shows the bytes whole");
        let len = &mut self.lengths[id.0];
        let place = match at {
            Some(at) => at,
            None if *appends => *len,
            None => *offset,
        };
        let end = place + count as u64;
        if at.is_none() {
            *offset = end;
        }
        *len = end.max(*len);
        let id = *id;
        self.push(Action::Write(id, place, bytes));
    }

    /// Room that is set aside reads as zeros; some file systems do not make the file longer.
    fn reserved(&mut self, call: &Call<'_>) {
        let Some(Open::File { id, .. }) = self.open.get(&call.descriptor(0)) else { return };
        let (id, end) = (*id, call.number(2) + call.number(3));
        match call.argument(1) {
            "FALLOC_FL_KEEP_SIZE" => {}
            "0" if end <= self.lengths[id.0] => {}
            "0" => {
                self.lengths[id.0] = end;
                self.push(Action::SetLen(id, end));
            }
            _ => panic!("the model does not know {call:?}"),
        }
    }

    fn renamed(&mut self, from: Option<PathBuf>, to: Option<PathBuf>) {
        let (from, to) = match (from, to) {
            (None, None) => return,
            (Some(from), Some(to)) => (from, to),
            pair => panic!("renamed across the root: {pair:?}"),
        };
        let node = self.names.remove(&from).expect("what was renamed had a name");
        assert!(matches!(node, Node::File(_)), "the model does not know renamed folders");
        self.names.insert(to.clone(), node);
        self.push(Action::Rename(from, to));
    }

    fn linked(&mut self, from: Option<PathBuf>, to: Option<PathBuf>) {
        let (Some(from), Some(to)) = (from, to) else { return };
        let node = *self.names.get(&from).expect("what was linked had a name");
        self.names.insert(to.clone(), node);
        self.push(Action::Link(from, to));
    }

    fn removed(&mut self, path: Option<PathBuf>) {
        let Some(path) = path else { return };
        match self.names.remove(&path).expect("what was removed had a name") {
            Node::Folder => self.push(Action::RemoveFolder(path)),
            Node::File(_) => self.push(Action::Unlink(path)),
        }
    }

    fn made_folder(&mut self, path: Option<PathBuf>) {
        let Some(path) = path else { return };
        self.names.insert(path.clone(), Node::Folder);
        self.push(Action::MakeFolder(path));
    }
}
