//! When an item starts, and what becomes of one that cannot, and of its gang.

use nexa_types::{Failure, Outcome, RunCode};
use nexa_vm::codec::VALUE_BYTES_MAX;

use super::list::distinct;
use super::{Coordinator, ENTRY_BYTES, NEVER};
use crate::children::BRANCHES_BYTES_MAX;

impl Coordinator {
    /// An item waits for nobody any more.
    pub(super) fn is_free(&mut self, index: u32) {
        let unit = self.units.of[index as usize];
        let unready = &mut self.unready[unit as usize];
        *unready = unready.saturating_sub(1);
        if *unready == 0 {
            self.ready.insert((self.turns[unit as usize], unit));
        }
    }

    /// An item may start as soon as its gang may, unless that has become too much to start together.
    pub(super) fn gather(&mut self, index: u32, open: &mut Vec<(u32, Outcome)>) {
        self.is_free(index);
        let unit = self.units.of[index as usize];
        let members = &self.units.members[unit as usize];
        if members.len() == 1 || self.unready[unit as usize] > 0 {
            return;
        }
        let bytes = members.iter().map(|index| self.bytes(*index as usize)).sum::<usize>();
        if bytes > BRANCHES_BYTES_MAX {
            self.ready.remove(&(self.turns[unit as usize], unit));
            let message = format!(
                "what the gang of agent `{}` is to start with has {bytes} bytes together, more than the \
                 {BRANCHES_BYTES_MAX} that can start at once: have those that it comes after give less",
                self.items[index as usize].id
            );
            self.cannot_start(index, &Failure::new(RunCode::OutOfMemory, message), open);
        }
    }

    /// An item cannot start, and so none of its gang does. `open` gets all of them.
    pub(super) fn cannot_start(&mut self, index: u32, failure: &Failure, open: &mut Vec<(u32, Outcome)>) {
        let unit = self.units.of[index as usize];
        for member in &self.units.members[unit as usize] {
            let failure = if *member == index {
                failure.clone()
            } else {
                let (this, that) = (&self.items[*member as usize].id, &self.items[index as usize].id);
                let message = format!("agent `{this}` was to start together with `{that}`, which cannot start");
                Failure { cause: Some(Box::new(failure.clone())), ..Failure::new(failure.code, message) }
            };
            self.waiting -= 1;
            open.push((*member, Outcome::Err(failure)));
        }
        self.unready[unit as usize] = NEVER;
    }

    /// How long the argument of an item is, at most, in bytes.
    fn bytes(&self, index: usize) -> usize {
        let item = &self.items[index];
        let of = |after: u32| self.len(after as usize) + self.items[after as usize].id.len() + ENTRY_BYTES;
        ENTRY_BYTES + item.input.len() + distinct(&item.after).into_iter().map(of).sum::<usize>()
    }

    /// Why an item cannot start although all has ended that it comes after, if so.
    pub(super) fn too_long(&self, index: usize) -> Option<Failure> {
        let (item, bytes) = (&self.items[index], self.bytes(index));
        (bytes > VALUE_BYTES_MAX).then(|| {
            let message = format!(
                "the results that agent `{}` comes after have {bytes} bytes together with its input, more than the \
                 {VALUE_BYTES_MAX} of one value: have them give less, or sum them up in several steps",
                item.id
            );
            Failure::new(RunCode::OutOfMemory, message)
        })
    }
}
