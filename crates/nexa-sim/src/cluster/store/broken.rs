//! Ways in which a store breaks its promises, to see whether that is noticed: the planted bugs of this layer.

use std::sync::atomic::Ordering;

use super::*;

/// Of how many acknowledgements one is a lie, with the bug that does that.
const LIES_ONE_IN: u64 = 60;

impl Server {
    pub(super) async fn judge(&self, batch: Vec<Append>) -> Vec<Result<Appended, AppendError>> {
        match self.bug {
            Some(Bug::StoreFence) => {
                let mut answers = Vec::new();
                for append in batch {
                    answers.extend(self.memory.append(vec![self.unfenced(append).await]).await);
                }
                answers
            }
            Some(Bug::EarlyAck) if self.dice.roll().is_multiple_of(LIES_ONE_IN) => {
                let position = *self.memory.head().borrow();
                let lie = |append: &Append| {
                    let version = Version(append.expected.0 + append.facts.len() as u64);
                    Ok(Appended { version, position, elsewhere: Vec::new() })
                };
                batch.iter().map(lie).collect()
            }
            Some(Bug::PostLost) => self.memory.append(batch.into_iter().map(without_posts).collect()).await,
            Some(Bug::BirthLost) => self.memory.append(batch.into_iter().map(without_last_birth).collect()).await,
            _ => self.memory.append(batch).await,
        }
    }

    /// What a store without a fence makes of an append: whoever writes is taken for the owner.
    async fn unfenced(&self, mut append: Append) -> Append {
        if let (StreamId::Agent(agent), Guard::Owner(_)) = (&append.stream, append.guard)
            && let Ok(Some(row)) = self.memory.row(*agent).await
        {
            (append.guard, append.expected) = (Guard::Owner(row.epoch), row.version);
        }
        append
    }

    /// What a store that does not know inputs by their ids makes of one.
    pub(super) fn renamed(&self, mut post: Post) -> Post {
        if self.bug == Some(Bug::InputTwice) {
            let number = self.renamings.fetch_add(1, Ordering::Relaxed);
            post.id = InputId::message(post.to, RequestId::from_bytes(u128::from(number).to_le_bytes()));
        }
        post
    }
}

fn without_posts(append: Append) -> Append {
    Append { posts: Vec::new(), ..append }
}

fn without_last_birth(mut append: Append) -> Append {
    if matches!(append.stream, StreamId::Agent(_)) {
        append.births.pop();
    }
    append
}
