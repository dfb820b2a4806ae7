//! The memory that outlives a process: a record for each parked connection, and who is who by name.
//!
//! | bytes                   | what                                                        |
//! |-------------------------|-------------------------------------------------------------|
//! | one page                | the header: cells as in `header`                            |
//! | 128 for each place      | records                                                     |
//! | [`AREA_BYTES`], twice   | the world as JSON: one is valid, the other is being written |
//!
//! Pages that nobody has written to cost nothing, so there are as many places as may ever be needed.
//! Each process makes a shelf of its own, one generation above that of the process before, because its
//! numbers mean something else; it counts from the moment at which it is marked as complete.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;

use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

use super::record::{self, CELLS, Cookies, Record, Slot};
use super::{KEEPER_MAX, MEMORY_NAME, SYSTEMD_MAX};
use crate::handover::world::World;
use crate::sys::shared::{self, Cells};

const MAGIC: u64 = 0x6b65_6570_2b65_7665;
/// Raised with each change that an older or newer program would misread.
const VERSION: u64 = 1;
/// One page.
const HEADER_CELLS: usize = 512;
/// Of a world: some 200,000 servers.
const AREA_BYTES: u64 = 64 * 1024 * 1024;

const _: () = assert!(SYSTEMD_MAX <= KEEPER_MAX);

/// Cells of the header.
mod header {
    pub(super) const MAGIC: usize = 0;
    pub(super) const VERSION: usize = 1;
    pub(super) const GENERATION: usize = 2;
    /// 1 where all that it should have is there.
    pub(super) const COMPLETE: usize = 3;
    /// How many records there is room for.
    pub(super) const PLACES: usize = 4;
    /// 0 for none, or 1 or 2 for the first or second area.
    pub(super) const AREA: usize = 5;
    /// Of the first area's JSON; that of the second follows.
    pub(super) const LENGTHS: usize = 6;
    /// As lengths.
    pub(super) const DIGESTS: usize = 8;
}

/// Why what was kept cannot be read.
#[derive(Debug, Error)]
pub enum ShelfError {
    /// It is something else.
    #[error("it is no memory of evenkeel's")]
    Stranger,
    /// Of another age.
    #[error("it is of version {0}, and this program reads {VERSION}")]
    Version(u64),
    /// The process was killed before it had written all.
    #[error("it was never complete")]
    Incomplete,
    /// It has changed, or is none.
    #[error("who is who is unreadable: {0}")]
    World(String),
    /// It cannot be had.
    #[error("{0}")]
    Kernel(#[from] io::Error),
}

/// The memory of one process.
#[derive(Debug)]
pub struct Shelf {
    file: File,
    cells: Cells,
    generation: u64,
    places: u32,
}

impl Shelf {
    /// An empty one, not complete yet.
    ///
    /// # Errors
    /// What the kernel says: no memory, no descriptor.
    pub fn new(generation: u64, is_systemd: bool) -> io::Result<Self> {
        let places = if is_systemd { SYSTEMD_MAX } else { KEEPER_MAX };
        let file = shared::memory_file("evenkeel connections", area_at(places, 2))?;
        let cells = Cells::map(&file, cells_of(places))?;
        let set = |cell: usize, value: u64| cells[cell].store(value, Ordering::Relaxed);
        set(header::VERSION, VERSION);
        set(header::GENERATION, generation);
        set(header::PLACES, places.into());
        cells[header::MAGIC].store(MAGIC, Ordering::Release);
        Ok(Self {
            file,
            cells,
            generation,
            places,
        })
    }

    /// What another process has left.
    ///
    /// # Errors
    /// It is none, or nothing that this program understands.
    pub fn open(file: File) -> Result<Self, ShelfError> {
        let head = Cells::map(&file, HEADER_CELLS).map_err(|_| ShelfError::Stranger)?;
        let cell = |cell: usize| head[cell].load(Ordering::Acquire);
        if cell(header::MAGIC) != MAGIC {
            return Err(ShelfError::Stranger);
        }
        if cell(header::VERSION) != VERSION {
            return Err(ShelfError::Version(cell(header::VERSION)));
        }
        let places = u32::try_from(cell(header::PLACES)).map_err(|_| ShelfError::Stranger)?;
        let generation = cell(header::GENERATION);
        if cell(header::COMPLETE) != 1 {
            return Err(ShelfError::Incomplete);
        }
        let cells = Cells::map(&file, cells_of(places)).map_err(|_| ShelfError::Stranger)?;
        Ok(Self {
            file,
            cells,
            generation,
            places,
        })
    }

    /// Which one it is in the line of those before it.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// What its store calls it.
    pub fn name(&self) -> String {
        format!("{MEMORY_NAME}{}", self.generation)
    }

    /// From now on it counts, and those of earlier generations do not.
    pub fn complete(&self) {
        self.cells[header::COMPLETE].store(1, Ordering::Release);
    }

    /// Writes who is who. To be called by one thread, at each change.
    ///
    /// # Errors
    /// It is too long; no memory is left. What was written before counts on.
    pub fn tell(&self, world: &World) -> io::Result<()> {
        let text = serde_json::to_vec(world)?;
        if text.len() as u64 > AREA_BYTES {
            return Err(io::Error::other("there are too many servers for it"));
        }
        let before = self.cells[header::AREA].load(Ordering::Relaxed);
        let index = usize::from(before == 1);
        self.file
            .write_all_at(&text, area_at(self.places, index as u64))?;
        let set = |cell: usize, value| self.cells[cell].store(value, Ordering::Relaxed);
        set(header::LENGTHS + index, text.len() as u64);
        set(header::DIGESTS + index, xxh3_64(&text));
        self.cells[header::AREA].store(index as u64 + 1, Ordering::Release);
        Ok(())
    }

    /// Who is who, as was told last.
    ///
    /// # Errors
    /// It was never told, or is not what was told.
    pub fn world(&self) -> Result<World, ShelfError> {
        let cell = |cell: usize| self.cells[cell].load(Ordering::Acquire);
        let index = match cell(header::AREA) {
            1 => 0,
            2 => 1,
            _ => return Err(ShelfError::Incomplete),
        };
        let length = cell(header::LENGTHS + index);
        if length > AREA_BYTES {
            return Err(ShelfError::World(format!("{length} bytes")));
        }
        let mut text = vec![0; usize::try_from(length).unwrap_or(0)];
        self.file
            .read_exact_at(&mut text, area_at(self.places, index as u64))?;
        if xxh3_64(&text) != cell(header::DIGESTS + index) {
            return Err(ShelfError::World("its digest is another one".to_owned()));
        }
        serde_json::from_slice(&text).map_err(|error| ShelfError::World(error.to_string()))
    }

    /// All records.
    pub(super) fn records(&self) -> impl Iterator<Item = (Record, Cookies)> {
        (0..self.places).filter_map(|index| record::read(self.place(index)?))
    }

    /// How many records there is room for.
    pub(super) fn places(&self) -> u32 {
        self.places
    }

    pub(super) fn write(&self, slot: Slot, record: &Record, cookies: Cookies) {
        if let Some(place) = self.place(slot.index()) {
            record::write(place, record, cookies);
        }
    }

    pub(super) fn clear(&self, slot: Slot) {
        if let Some(place) = self.place(slot.index()) {
            record::clear(place);
        }
    }

    fn place(&self, index: u32) -> Option<&[std::sync::atomic::AtomicU64; CELLS]> {
        let from = HEADER_CELLS + index as usize * CELLS;
        record::cells(&self.cells, from).filter(|_| index < self.places)
    }
}

impl AsFd for Shelf {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn cells_of(places: u32) -> usize {
    HEADER_CELLS + places as usize * CELLS
}

/// Where an area begins, counted from 0; that of the one behind the last is the end.
fn area_at(places: u32, index: u64) -> u64 {
    let table = cells_of(places) * size_of::<u64>();
    (table as u64).next_multiple_of(4096) + index * AREA_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handover::world::ServerState;
    use std::os::unix::fs::MetadataExt;

    fn world(servers: u32) -> World {
        World {
            servers: (0..servers)
                .map(|number| ServerState {
                    number,
                    ..ServerState::default()
                })
                .collect(),
            ..World::default()
        }
    }

    fn again(shelf: &Shelf) -> Result<Shelf, ShelfError> {
        Shelf::open(shelf.file.try_clone().unwrap())
    }

    #[test]
    fn what_was_written_is_found_by_the_next_one() {
        let shelf = Shelf::new(7, false).unwrap();
        assert!(matches!(again(&shelf), Err(ShelfError::Incomplete)));
        shelf.complete();
        assert!(matches!(
            again(&shelf).unwrap().world(),
            Err(ShelfError::Incomplete)
        ));
        for servers in [3, 50, 2, 1] {
            shelf.tell(&world(servers)).unwrap();
            assert_eq!(again(&shelf).unwrap().world().unwrap(), world(servers));
        }
        let record = Record {
            id: 5,
            ..Record::default()
        };
        let slots = [0, 9, KEEPER_MAX - 1].map(|index| Slot::new(index).unwrap());
        for slot in slots {
            shelf.write(slot, &record, [1, 2]);
        }
        shelf.clear(slots[1]);
        let next = again(&shelf).unwrap();
        assert_eq!(next.records().collect::<Vec<_>>(), [(record, [1, 2]); 2]);
        assert_eq!((next.generation(), next.name()), (7, "evenkeel+7".into()));
        // A place that is not there.
        shelf.write(Slot::new(KEEPER_MAX).unwrap(), &record, [1, 2]);
        assert_eq!(next.world().unwrap(), world(1));
    }

    #[test]
    fn a_kill_in_the_middle_leaves_the_older_world() {
        let shelf = Shelf::new(1, true).unwrap();
        shelf.complete();
        shelf.tell(&world(2)).unwrap();
        // The next area is written, and its length, before it counts.
        let second = area_at(shelf.places, 1);
        shelf.file.write_all_at(b"{\"serv", second).unwrap();
        shelf.cells[header::LENGTHS + 1].store(6, Ordering::Relaxed);
        assert_eq!(again(&shelf).unwrap().world().unwrap(), world(2));
        shelf.tell(&world(3)).unwrap();
        shelf.file.write_all_at(b"x", second).unwrap();
        assert!(matches!(shelf.world(), Err(ShelfError::World(_))));
    }

    #[test]
    fn what_is_another_s_or_of_another_age_is_told() {
        let stranger = |file: File| matches!(Shelf::open(file), Err(ShelfError::Stranger));
        assert!(stranger(File::open("/dev/null").unwrap()));
        assert!(stranger(shared::memory_file("x", 100).unwrap()));
        assert!(stranger(shared::memory_file("x", 1 << 20).unwrap()));
        let shelf = Shelf::new(1, true).unwrap();
        shelf.complete();
        shelf.cells[header::PLACES].store(u32::MAX.into(), Ordering::Relaxed);
        assert!(matches!(again(&shelf), Err(ShelfError::Stranger)));
        shelf.cells[header::VERSION].store(2, Ordering::Relaxed);
        assert!(matches!(again(&shelf), Err(ShelfError::Version(2))));
    }

    #[test]
    fn an_empty_one_takes_no_memory_to_speak_of() {
        let shelf = Shelf::new(1, false).unwrap();
        let blocks = shelf.file.metadata().unwrap().blocks();
        assert!(blocks * 512 <= 3 * 4096, "{blocks} blocks");
    }
}
