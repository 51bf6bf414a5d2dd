//! Random edits of a described tree: what happens to files between two backups.

use super::generate::Generator;
use super::{Filling, Segment, Shape, SpecKind, SpecPath, TreeSpec};
use crate::random::Random;
use std::collections::BTreeMap;

impl TreeSpec {
    /// The tree after this many random edits: content changed, extended or cut, metadata changed, entries added,
    /// removed and renamed, types changed. A changed file gets a new modification time.
    pub fn edited(&self, seed: u64, edits: usize, shape: &Shape) -> Self {
        let mut generator = Generator { random: Random::new(seed), shape };
        let mut tree = self.clone();
        for edit in 0..edits {
            generator.edit(&mut tree, edit);
            tree.normalise();
        }
        tree
    }
}

impl Generator<'_> {
    fn edit(&mut self, tree: &mut TreeSpec, number: usize) {
        let paths: Vec<SpecPath> = tree.nodes.keys().cloned().collect();
        if paths.is_empty() || self.random.percent(15) {
            return self.add(tree, number);
        }
        let path = self.random.pick(&paths).clone();
        match self.random.below(6) {
            0 => drop(tree.nodes.remove(&path)),
            1 => self.rename(tree, &path, number),
            2 => {
                let node = tree.nodes.get_mut(&path).expect("picked from the tree");
                node.meta = self.meta(&node.kind);
            }
            3 => {
                // Another type under the same name; what was below a directory goes with it.
                let node = tree.nodes.get_mut(&path).expect("picked from the tree");
                node.kind = match node.kind {
                    SpecKind::Directory => SpecKind::File(self.content()),
                    _ => SpecKind::Directory,
                };
                node.meta = self.meta(&node.kind);
            }
            _ => self.change_content(tree, &path),
        }
    }

    fn add(&mut self, tree: &mut TreeSpec, number: usize) {
        let mut folders = vec![Vec::new()];
        folders.extend(
            tree.nodes
                .iter()
                .filter(|(_, node)| node.kind == SpecKind::Directory)
                .map(|(path, _)| path.clone()),
        );
        let mut path = self.random.pick(&folders).clone();
        path.push(format!("added-{number}-{}", self.random.below(1000)).into_bytes());
        let kind = if self.random.percent(20) {
            SpecKind::Directory
        } else {
            SpecKind::File(self.content())
        };
        let meta = self.meta(&kind);
        tree.nodes.insert(path, super::SpecNode { kind, meta });
    }

    /// Renames an entry within its directory, with everything below it.
    fn rename(&mut self, tree: &mut TreeSpec, from: &SpecPath, number: usize) {
        let mut to = from.clone();
        to.pop();
        to.push(format!("renamed-{number}-{}", self.random.below(1000)).into_bytes());
        let moved = |path: &SpecPath| match path.strip_prefix(from.as_slice()) {
            Some(rest) => [to.as_slice(), rest].concat(),
            None => path.clone(),
        };
        let nodes: BTreeMap<_, _> = std::mem::take(&mut tree.nodes)
            .into_iter()
            .map(|(path, mut node)| {
                if let SpecKind::HardLink(target) = &mut node.kind {
                    *target = moved(target);
                }
                (moved(&path), node)
            })
            .collect();
        tree.nodes = nodes;
    }

    fn change_content(&mut self, tree: &mut TreeSpec, path: &SpecPath) {
        let node = tree.nodes.get_mut(path).expect("picked from the tree");
        let SpecKind::File(content) = &mut node.kind else { return };
        let seed = self.random.next_u64();
        let new = Segment { len: 1 + self.random.below(500), filling: Filling::Text(seed) };
        match self.random.below(3) {
            0 => content.segments.push(new),
            1 => content.segments.insert(0, new),
            _ => match content.segments.last_mut() {
                Some(last) => last.len /= 2,
                None => content.segments.push(new),
            },
        }
        node.meta = self.meta(&SpecKind::File(content.clone()));
    }
}
