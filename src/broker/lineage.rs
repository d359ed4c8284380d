//! The epochs of a log that has been through losses, and what a position of one means in another.
//!
//! Offsets grow through all epochs of a lineage: each begins beyond everything that was ever given
//! out before. So one number still orders all that a node has seen, and what was lost is a range.

use std::fmt;

use crate::position::{Epoch, Offset, Position};

/// An epoch begins at a multiple of this. `redis/hello.lua` knows it too.
const STEP: Offset = 1_000_000_000;
/// The most epochs of a file; the oldest are forgotten first, and their positions are `gap epoch`.
const MOST_EPOCHS: usize = 1000;

/// One epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) epoch: Epoch,
    /// The last offset it has in common with the epoch before.
    pub(super) shared: Offset,
    /// The offset before its own first; from `shared` to here there is nothing.
    pub(super) base: Offset,
    /// The first offset that was lost when it began; 0 if nothing was.
    lost: Offset,
}

/// The epochs of a log, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lineage(Vec<Line>);

/// The way from one epoch into the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Crossing {
    pub(super) to: Position,
    pub(super) is_lossy: bool,
}

/// A stretch of offsets that a reader does not get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Loss {
    /// What comes up to here is unharmed.
    pub(super) shared: Offset,
    pub(super) from: Position,
    pub(super) to: Position,
}

impl Lineage {
    /// Of a log that begins with `epoch`.
    pub(super) fn of(epoch: Epoch) -> Self {
        Self(vec![Line { epoch, shared: 0, base: 0, lost: 0 }])
    }

    /// Begins `epoch` behind a log whose newest offset is `head`; gives the offset before its first.
    /// Whether the epoch before went on elsewhere cannot be known here: whoever saw more of it tells.
    pub(super) fn begin(&mut self, epoch: Epoch, head: Offset) -> Offset {
        let base = (head / STEP + 1) * STEP;
        self.0.push(Line { epoch, shared: head, base, lost: 0 });
        while self.0.len() > MOST_EPOCHS {
            self.drop_one();
        }
        base
    }

    /// Drops an epoch in which nothing was stored, or else the oldest: a hub that cannot come up begins one at every
    /// attempt.
    fn drop_one(&mut self) {
        let is_empty = |pair: &[Line]| matches!(pair, [line, next] if next.shared == line.base);
        let Some(at) = self.0.windows(2).skip(1).position(is_empty).map(|at| at + 1) else {
            self.0.remove(0);
            return;
        };
        let Line { shared, .. } = self.0.remove(at);
        if let Some(next) = self.0.get_mut(at) {
            next.shared = shared;
        }
    }

    /// Reads what the script or [`Display`](fmt::Display) wrote; None if it is something else.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let line = |text: &str| {
            let mut parts = text.split(' ');
            let epoch = u64::from_str_radix(parts.next()?, 16).ok()?;
            let mut number = || parts.next()?.parse().ok();
            let (shared, base, lost) = (number()?, number()?, number()?);
            (shared <= base).then_some(Line { epoch: Epoch::new(epoch), shared, base, lost })
        };
        let lines: Option<Vec<Line>> = text.split(';').map(line).collect();
        lines.filter(|lines| !lines.is_empty()).map(Self)
    }

    /// The newest epoch.
    pub(super) fn newest(&self) -> Epoch {
        self.0.last().map_or(Epoch::new(0), |line| line.epoch)
    }

    /// The offset before the newest epoch's first.
    pub(super) fn base(&self) -> Offset {
        self.0.last().map_or(0, |line| line.base)
    }

    /// The epoch in which an offset was given out, or that began there.
    pub(super) fn epoch_of(&self, offset: Offset) -> Epoch {
        let line = self.0.iter().rev().find(|line| line.base <= offset).or(self.0.first());
        line.map_or(Epoch::new(0), |line| line.epoch)
    }

    /// Whether `epoch` may have given out `offset`.
    pub(super) fn holds(&self, epoch: Epoch, offset: Offset) -> bool {
        !self.remembers(offset) || self.epoch_of(offset) == epoch
    }

    /// Whether it is known which epoch `offset` is of: those before the first were cut off, not lost.
    pub(super) fn remembers(&self, offset: Offset) -> bool {
        self.0.first().is_some_and(|first| first.base <= offset)
    }

    /// Where one who is at `head` in `epoch` goes on, if the epoch has ended there or before.
    pub(super) fn crossing(&self, epoch: Epoch, head: Offset) -> Option<Crossing> {
        let Some(at) = self.index(epoch) else {
            // The script puts every epoch it is told of into the lineage: a short one was cut off.
            return self.landing(0, head);
        };
        let next = self.0.get(at + 1)?;
        if head < next.shared {
            return None;
        }
        if head > next.shared {
            return self.landing(at + 1, head);
        }
        let to = Position { epoch: next.epoch, offset: next.base };
        Some(Crossing { to, is_lossy: next.lost > 0 })
    }

    /// The first epoch from `index` on that begins beyond `head`.
    fn landing(&self, index: usize, head: Offset) -> Option<Crossing> {
        let line = self.0[index..].iter().find(|line| line.base >= head)?;
        let to = Position { epoch: line.epoch, offset: line.base };
        Some(Crossing { to, is_lossy: true })
    }

    /// The first loss that a reader at `after` comes upon.
    pub(super) fn loss_above(&self, after: Offset) -> Option<Loss> {
        let is_ahead = |line: &&Line| line.base > after && (line.lost > 0 || line.shared < after);
        let line = self.0.iter().find(is_ahead)?;
        let first = if line.lost > 0 { line.lost.min(after + 1) } else { after + 1 };
        let from = Position { epoch: self.epoch_of(first), offset: first };
        let to = Position { epoch: line.epoch, offset: line.base };
        Some(Loss { shared: line.shared, from, to })
    }

    /// How many offsets lie above `after` up to `until`, without the holes between epochs.
    pub(super) fn between(&self, after: Offset, until: Offset) -> u64 {
        let ahead = self.0.iter().rev().take_while(|line| line.base > after);
        let holes = ahead.filter(|line| line.base <= until);
        let holes: u64 = holes.map(|line| line.base - line.shared.max(after)).sum();
        until.saturating_sub(after).saturating_sub(holes)
    }

    /// Where a reader with a position of any epoch goes on: an offset, or behind a loss.
    pub(super) fn resume(&self, position: Position) -> Option<Result<Offset, Position>> {
        let (at, offset) = (self.index(position.epoch)?, position.offset);
        // Its own epoch never had what lies between an earlier one's end and its own beginning: such a
        // position was told by a node that heard of the epoch while it looked at what that had lost.
        let mut until_its_own = self.0.iter().take(at + 1);
        let lost = until_its_own.find(|line| line.shared < offset && offset < line.base);
        let next = self.0.get(at + 1).filter(|next| offset > next.shared);
        Some(match lost.or(next) {
            Some(line) => Err(Position { epoch: line.epoch, offset: line.base }),
            None => Ok(offset),
        })
    }

    /// Whether nothing lies between `at` and `before`, the offset before an entry's first.
    pub(super) fn joins(&self, at: Offset, before: Offset) -> bool {
        self.forward(at) == self.forward(before)
    }

    /// `offset`, or where the epochs go on that end there.
    fn forward(&self, offset: Offset) -> Offset {
        self.0.iter().fold(offset, |at, line| if line.shared == at { line.base } else { at })
    }

    /// `offset`, or the end of what came before the epochs that begin there.
    pub(super) fn backward(&self, offset: Offset) -> Offset {
        let back = |at, line: &Line| if line.base == at { line.shared } else { at };
        self.0.iter().rev().fold(offset, back)
    }

    fn index(&self, epoch: Epoch) -> Option<usize> {
        self.0.iter().position(|line| line.epoch == epoch)
    }
}

impl fmt::Display for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Line { epoch, shared, base, lost }) in self.0.iter().enumerate() {
            let separator = if index > 0 { ";" } else { "" };
            write!(f, "{separator}{epoch} {shared} {base} {lost}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Epoch = Epoch::new(0xa);
    const B: Epoch = Epoch::new(0xb);
    const C: Epoch = Epoch::new(0xc);

    fn at(epoch: Epoch, offset: Offset) -> Position {
        Position { epoch, offset }
    }

    fn lineage(text: &str) -> Lineage {
        Lineage::parse(text).unwrap()
    }

    #[test]
    fn a_restart_that_lost_nothing_is_crossed_without_a_word() {
        let log = lineage("a 0 0 0;b 50 1000 0");
        assert_eq!((log.newest(), log.epoch_of(50)), (B, A));
        assert_eq!((log.epoch_of(1000), log.epoch_of(1001)), (B, B));
        assert_eq!(log.crossing(A, 49), None);
        assert_eq!(log.crossing(A, 50), Some(Crossing { to: at(B, 1000), is_lossy: false }));
        assert_eq!(log.crossing(B, 1000), None);
        assert_eq!(
            (log.loss_above(7), log.loss_above(50), log.loss_above(1003)),
            (None, None, None)
        );
        assert_eq!(log.resume(at(A, 50)), Some(Ok(50)));
        assert_eq!(log.resume(at(A, 51)), Some(Err(at(B, 1000))));
        assert_eq!(log.resume(at(B, 1003)), Some(Ok(1003)));
        assert_eq!(log.resume(at(C, 1)), None);
        assert!(log.joins(50, 1000) && log.joins(7, 7) && !log.joins(49, 1000));
        assert_eq!((log.backward(1000), log.backward(1001)), (50, 1001));
        assert_eq!(
            (log.between(40, 50), log.between(40, 1000), log.between(40, 1003)),
            (10, 10, 13)
        );
        assert_eq!((log.between(70, 1003), log.between(1000, 1003), log.between(9, 9)), (3, 3, 0));
    }

    #[test]
    fn a_loss_is_met_where_it_begins_and_from_within() {
        let log = lineage("a 0 0 0;b 50 1000 51;c 1010 2000 0");
        assert_eq!(log.crossing(A, 50), Some(Crossing { to: at(B, 1000), is_lossy: true }));
        assert_eq!(log.crossing(A, 70), Some(Crossing { to: at(B, 1000), is_lossy: true }));
        let loss = |from| Some(Loss { shared: 50, from: at(A, from), to: at(B, 1000) });
        assert_eq!(
            (log.loss_above(7), log.loss_above(50)),
            (Some(Loss { shared: 50, from: at(A, 8), to: at(B, 1000) }), loss(51))
        );
        assert_eq!(log.loss_above(70), loss(51));
        assert_eq!((log.loss_above(1000), log.loss_above(1010)), (None, None));
    }

    #[test]
    fn a_position_put_together_from_two_epochs_is_lost_with_the_first() {
        let log = lineage("a 0 0 0;b 50 1000 51;c 1010 2000 0");
        for epoch in [B, C] {
            assert_eq!(log.resume(at(epoch, 50)), Some(Ok(50)));
            assert_eq!(log.resume(at(epoch, 51)), Some(Err(at(B, 1000))));
            assert_eq!(log.resume(at(epoch, 1000)), Some(Ok(1000)));
        }
        assert_eq!(log.resume(at(C, 1999)), Some(Err(at(C, 2000))));
    }

    #[test]
    fn what_epochs_gave_out_that_were_cut_off_is_still_theirs() {
        let log = lineage("b 50 1000 0;c 1010 2000 0");
        assert!(log.holds(A, 50) && log.holds(B, 1001) && log.holds(C, 2001));
        assert!(!log.holds(A, 1001) && !log.holds(C, 1001) && !log.holds(A, 2001));
    }

    #[test]
    fn a_loss_told_late_names_what_was_lost_before() {
        // Whoever crossed into b without a word hears in c of what a had lost.
        let log = lineage("a 0 0 0;b 50 1000 51;c 1010 2000 51");
        let loss = log.loss_above(1010).unwrap();
        assert_eq!((loss.from, loss.to), (at(A, 51), at(C, 2000)));
    }

    #[test]
    fn a_history_that_is_gone_is_left_for_the_first_epoch_beyond_it() {
        let log = lineage("a 0 0 0;b 0 0 1;c 9 1000 1");
        assert_eq!(log.crossing(A, 70), Some(Crossing { to: at(C, 1000), is_lossy: true }));
        assert_eq!(log.resume(at(A, 70)), Some(Err(at(B, 0))));
    }

    #[test]
    fn a_file_keeps_the_newest_epochs_and_forgets_the_oldest() {
        let mut log = Lineage::of(A);
        assert_eq!(log.begin(B, 50), STEP);
        assert_eq!(log.to_string(), "a 0 0 0;b 50 1000000000 0");
        assert_eq!(Lineage::parse(&log.to_string()), Some(log.clone()));
        let mut head = STEP + 7;
        for epoch in 0x100..0x100 + MOST_EPOCHS as u64 - 1 {
            head = log.begin(Epoch::new(epoch), head) + 1;
        }
        assert_eq!(log.0.len(), MOST_EPOCHS);
        assert_eq!(log.resume(at(A, 50)), None);
        assert_eq!(log.resume(at(B, STEP + 7)), Some(Ok(STEP + 7)));
        assert_eq!(log.resume(at(B, STEP + 8)), Some(Err(at(Epoch::new(0x100), 2 * STEP))));
    }

    #[test]
    fn a_thousand_starts_in_vain_cost_no_position() {
        let mut log = Lineage::of(A);
        let mut head = 50;
        for epoch in 0x100..0x100 + 3 * MOST_EPOCHS as u64 {
            head = log.begin(Epoch::new(epoch), head);
        }
        assert_eq!(log.0.len(), MOST_EPOCHS);
        assert_eq!(log.resume(at(A, 50)), Some(Ok(50)));
        let (newest, next) = (log.newest(), log.0[1].epoch);
        assert_eq!(log.resume(at(newest, head + 3)), Some(Ok(head + 3)));
        // A copy of the first may have gone on.
        let lost = log.resume(at(A, 51)).unwrap().unwrap_err();
        assert_eq!((lost.epoch, log.0[1].shared, log.0[1].base), (next, 50, lost.offset));
        assert_eq!((log.between(40, head + 3), log.epoch_of(50)), (13, A));
        assert_eq!(Lineage::parse(&log.to_string()), Some(log));
    }

    #[test]
    fn nonsense_is_no_lineage() {
        for bad in ["", "x", "a 1", "a 1 2", "a 5 2 0", "a 0 0 0;", "zz 0 0 0"] {
            assert_eq!(Lineage::parse(bad), None, "{bad}");
        }
    }
}
