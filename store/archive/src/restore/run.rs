//! Which frames a restore fetches with one read of the repository. Knows places, and nothing of files.

use stillpoint_store::index::Location;
use stillpoint_store::read::joins_run;

/// Frames of one pack that lie next to each other, to be fetched with one read.
pub(super) struct Run {
    /// For each frame, the wants in it: place and number.
    pub frames: Vec<Vec<(Location, usize)>>,
}

impl Run {
    /// A run of the one frame that holds this chunk.
    pub fn new(place: Location, number: usize) -> Self {
        Self { frames: vec![vec![(place, number)]] }
    }

    /// A chunk of the first frame, and one of the last.
    pub fn ends(&self) -> (&Location, &Location) {
        let first = self.frames.first().and_then(|frame| frame.first());
        let last = self.frames.last().and_then(|frame| frame.first());
        let (first, _) = first.expect("a run begins with a want");
        (first, last.map_or(first, |(place, _)| place))
    }

    /// True where the chunk's frame belongs to the run.
    pub fn takes(&self, place: &Location) -> bool {
        let (first, last) = self.ends();
        (place.pack, place.frame) == (last.pack, last.frame) || joins_run(first, last, place)
    }

    /// Adds a wanted chunk; places come in ascending order.
    pub fn push(&mut self, place: Location, number: usize) {
        match self.frames.last_mut() {
            Some(frame) if frame.first().is_some_and(|(own, _)| own.frame == place.frame) => {
                frame.push((place, number));
            }
            _ => self.frames.push(vec![(place, number)]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stillpoint_store::PackId;

    fn place(pack: u8, frame: u32, frame_offset: u32, offset: u32) -> Location {
        let pack = PackId::from_bytes([pack; 16]);
        Location { pack, frame, frame_offset, frame_len: 1000, offset, len: 10 }
    }

    fn runs(places: &[Location]) -> Vec<Vec<usize>> {
        let mut runs: Vec<Run> = Vec::new();
        for (number, place) in places.iter().enumerate() {
            match runs.last_mut() {
                Some(run) if run.takes(place) => run.push(*place, number),
                _ => runs.push(Run::new(*place, number)),
            }
        }
        runs.iter().map(|run| run.frames.iter().map(Vec::len).collect()).collect()
    }

    /// Chunks of one frame stay together, near frames of one pack are one run, far ones and other packs are not, and
    /// no run grows beyond its limit.
    #[test]
    fn near_frames_are_fetched_together() {
        let near =
            [place(1, 0, 0, 0), place(1, 0, 0, 10), place(1, 1, 1000, 0), place(1, 3, 60_000, 5)];
        assert_eq!(runs(&near), [vec![2, 1, 1]]);
        assert_eq!(runs(&[place(1, 0, 0, 0), place(2, 1, 1000, 0)]), [vec![1], vec![1]]);
        assert_eq!(runs(&[place(1, 0, 0, 0), place(1, 9, 70_000, 0)]), [vec![1], vec![1]]);
        let many: Vec<_> = (0..5000).map(|frame| place(1, frame, frame * 1000, 0)).collect();
        let sizes: Vec<usize> = runs(&many).iter().map(Vec::len).collect();
        assert_eq!(sizes.iter().sum::<usize>(), 5000);
        assert!(sizes.len() > 1 && sizes.iter().all(|size| *size * 1000 <= 1 << 20), "{sizes:?}");
    }
}
