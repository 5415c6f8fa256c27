//! Several sources as one, in the order of time: one piece of each in memory.

use crate::http::lines::{Line, Source};
use crate::http::merge::{Item, TAIL_BYTES_MAX};
use crate::refusal::Answer;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// Memory of all sources together.
const BYTES: usize = 2 << 20;

/// Sources that are each sorted already.
#[derive(Default)]
pub struct Sorted {
    sources: Vec<Source>,
    /// Time of the next line of each source that has one.
    order: BinaryHeap<Reverse<(i64, usize)>>,
    piece_bytes: usize,
    /// Nothing will be followed: an unfinished last line has its turn like any other.
    at_end: bool,
}

impl Sorted {
    /// Reads the first line of each. `sharing`: so many of these share the memory of one.
    pub fn new(sources: Vec<Source>, sharing: usize) -> Answer<Sorted> {
        let piece_bytes = (BYTES / sources.len().max(1) / sharing.max(1)).clamp(4 << 10, 64 << 10);
        let mut sorted = Sorted {
            sources,
            order: BinaryHeap::new(),
            piece_bytes,
            at_end: false,
        };
        for index in 0..sorted.sources.len() {
            sorted.queue(index)?;
        }
        Ok(sorted)
    }

    /// Nothing will be followed: unfinished last lines are lines.
    pub fn end(&mut self) {
        if std::mem::replace(&mut self.at_end, true) {
            return;
        }
        for (index, source) in self.sources.iter_mut().enumerate() {
            if source.ready.is_empty() {
                source.flush(true);
                if let Some(line) = source.ready.front() {
                    self.order.push(Reverse((line.wall_ms, index)));
                }
            }
        }
    }

    /// Puts the next line of a source in the order; unfinished lines stay behind when more may come.
    fn queue(&mut self, index: usize) -> Answer<()> {
        let Some(source) = self.sources.get_mut(index) else {
            return Ok(());
        };
        while source.ready.is_empty() && source.fill(self.piece_bytes)? {}
        if self.at_end && source.ready.is_empty() {
            source.flush(true);
        }
        if let Some(line) = source.ready.front() {
            self.order.push(Reverse((line.wall_ms, index)));
        }
        Ok(())
    }

    /// Time of the next line, Unix ms.
    pub fn next_ms(&self) -> Option<i64> {
        self.order.peek().map(|Reverse((wall_ms, _))| *wall_ms)
    }

    /// The next line, and the index of its source; none at the end of what there is.
    pub fn pop(&mut self) -> Answer<Option<(usize, Line)>> {
        while let Some(Reverse((_, index))) = self.order.pop() {
            let line = self
                .sources
                .get_mut(index)
                .and_then(|source| source.ready.pop_front());
            self.queue(index)?;
            if let Some(line) = line {
                return Ok(Some((index, line)));
            }
        }
        Ok(None)
    }

    /// A source, by its index.
    pub fn source(&self, index: usize) -> Option<&Source> {
        self.sources.get(index)
    }

    /// The sources, each where its reading ended.
    pub fn into_sources(self) -> Vec<Source> {
        self.sources
    }
}

/// Only the newest of the lines that `next` gives, until it gives none.
pub fn newest(tail: usize, mut next: impl FnMut() -> Answer<Vec<Item>>) -> Answer<VecDeque<Item>> {
    let mut newest: VecDeque<Item> = VecDeque::new();
    let mut bytes = 0;
    loop {
        let items = next()?;
        if items.is_empty() {
            return Ok(newest);
        }
        for item in items {
            bytes += item.line.text.len();
            newest.push_back(item);
            while newest.len() > tail || bytes > TAIL_BYTES_MAX {
                bytes -= newest.pop_front().map_or(0, |old| old.line.text.len());
            }
        }
    }
}
