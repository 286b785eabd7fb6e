//! What leaders write, in memory.

use std::collections::BTreeMap;

use futures::future::BoxFuture;
use nexa_types::{AgentState, Epoch, Version};

use super::{Kept, MemoryStore};
use crate::leadership::{self, LeadError, Leadership, RECORDS_MAX, Record};
use crate::store::{Place, StoreError};

/// The newest leadership that anybody told of, and the records.
#[derive(Default)]
pub(super) struct Led {
    epoch: Epoch,
    records: BTreeMap<String, Record>,
}

impl Led {
    /// Refuses an earlier leader; a later one is known from now on.
    fn lead(&mut self, epoch: Epoch) -> Result<(), LeadError> {
        leadership::admits(self.epoch, epoch)?;
        self.epoch = epoch;
        Ok(())
    }

    fn put(&mut self, leader: Epoch, name: String, expected: Version, value: Vec<u8>) -> Result<Version, LeadError> {
        self.lead(leader)?;
        let current = self.records.get(&name).map_or(Version(0), |record| record.version);
        if current != expected {
            return Err(LeadError::Changed { given: expected, current });
        }
        if current == Version(0) && self.records.len() >= RECORDS_MAX {
            return Err(leadership::full());
        }
        let version = current.next();
        self.records.insert(name.clone(), Record { name, version, epoch: leader, value });
        Ok(version)
    }
}

fn place_live(kept: &mut Kept, wish: &Place) -> Result<Epoch, Epoch> {
    let has_ended = kept.agents.get(&wish.agent).is_none_or(|row| AgentState::is_terminal(row.state));
    if has_ended { Err(Epoch(0)) } else { kept.place(wish) }
}

impl Leadership for MemoryStore {
    fn lead(&self, epoch: Epoch) -> BoxFuture<'_, Result<(), LeadError>> {
        Box::pin(async move { self.write(|kept| kept.led.lead(epoch))? })
    }

    fn place_as(
        &self,
        leader: Epoch,
        wishes: Vec<Place>,
    ) -> BoxFuture<'_, Result<Vec<Result<Epoch, Epoch>>, LeadError>> {
        Box::pin(async move {
            self.write(|kept| {
                kept.led.lead(leader)?;
                Ok(wishes.iter().map(|wish| place_live(kept, wish)).collect())
            })?
        })
    }

    fn put_record(
        &self,
        leader: Epoch,
        name: String,
        expected: Version,
        value: Vec<u8>,
    ) -> BoxFuture<'_, Result<Version, LeadError>> {
        Box::pin(async move {
            leadership::fits(&value)?;
            self.write(|kept| kept.led.put(leader, name, expected, value))?
        })
    }

    fn records(&self, prefix: String) -> BoxFuture<'_, Result<Vec<Record>, StoreError>> {
        Box::pin(async move {
            let kept = self.lock();
            let later = kept.led.records.range(prefix.clone()..);
            Ok(later.take_while(|(name, _)| name.starts_with(&prefix)).map(|(_, record)| record.clone()).collect())
        })
    }
}
