//! Answers to approvals. The first answer counts.
//!
//! Idempotent: an answer that is equal to the one that counts is accepted again; a different one is refused with
//! NOT_WAITING. The inbox takes one entry an effect, so of two answers at once one wins, and the other is found out by
//! reading back; so is one that came too late.

use nexa_event::effect::{Answer, Decision};
use nexa_event::envelope::Fact;
use nexa_event::fact::{AgentEvent, EffectResult, Input, Intent};
use nexa_ports::store::{Post, Recorded};
use nexa_proto::refusal::Refusal;
use nexa_types::{AgentId, InputId, Reason, Seq};

use super::{By, Handlers, store_refusal};
use crate::mediator::{AnswerApproval, ApprovalId};

/// Where a question stands.
enum Question {
    NeverAsked,
    Waits,
    Answered(Decision),
    /// It expired, or its agent has gone on without an answer.
    Over,
}

impl Handlers {
    pub(super) async fn answer_approval(&self, by: &By, answer: AnswerApproval) -> Result<(), Refusal> {
        let AnswerApproval { approval, approved, note, .. } = answer;
        let row = self.own_agent(by, approval.agent).await.map_err(|refusal| match refusal.reason {
            Reason::NotFound => Refusal::not_found("approval", approval),
            _ => refusal,
        })?;
        let decision = Decision { approved, by: by.identity.principal.to_string(), note };
        if let Some(settled) = self.settled(approval, &decision).await? {
            return settled;
        }
        let key = approval.key(row.workload);
        let id = InputId::answer(key);
        let result = EffectResult::Done(Answer::Approval(decision.clone()));
        let input = Input::Answered { seq: approval.seq, key, result };
        let post = Post { to: approval.agent, id, input, trace: by.trace };
        self.post(by, post).await.map_err(|refusal| match refusal.reason {
            Reason::AlreadyEnded => not_waiting(approval, "its agent has ended"),
            _ => refusal,
        })?;
        // The question first: an answer that stands in the inbox of somebody who has gone on counts for nothing.
        if let Some(settled) = self.settled(approval, &decision).await? {
            return settled;
        }
        // It waits, so the answer that is in the inbox is the one that will count: this one, or one that came first?
        if let Some(counts) = self.waiting_answer(approval.agent, id).await? {
            return settle(approval, &decision, &counts);
        }
        // Taken between the two looks, together with the fact that now says what became of it.
        match self.settled(approval, &decision).await? {
            Some(settled) => settled,
            None => Err(not_waiting(approval, "its agent took the answer and did not use it")),
        }
    }

    /// What is to be said about an answer to a question that does not wait any more; `None` if it still waits.
    async fn settled(&self, approval: ApprovalId, given: &Decision) -> Result<Option<Result<(), Refusal>>, Refusal> {
        Ok(match self.question(approval).await? {
            Question::NeverAsked => Some(Err(Refusal::not_found("approval", approval))),
            Question::Answered(counts) => Some(settle(approval, given, &counts)),
            Question::Over => Some(Err(not_waiting(approval, "its agent has gone on without an answer"))),
            Question::Waits => None,
        })
    }

    async fn question(&self, approval: ApprovalId) -> Result<Question, Refusal> {
        let (standings, facts) = self.fold_agent(approval.agent).await?;
        let ended = standings.agents.get(&approval.agent).is_some_and(|agent| agent.state.is_terminal());
        Ok(where_it_stands(approval.seq, &facts, ended))
    }

    /// The answer that waits in the inbox.
    async fn waiting_answer(&self, agent: AgentId, id: InputId) -> Result<Option<Decision>, Refusal> {
        let entry = self.store.entry(agent, id).await.map_err(store_refusal)?;
        Ok(entry.and_then(|entry| match entry.input {
            Input::Answered { result: EffectResult::Done(Answer::Approval(decision)), .. } => Some(decision),
            _ => None,
        }))
    }
}

/// Whether a fact asks a person or ends an effect that may have been a question.
pub(super) fn is_about_a_question(recorded: &Recorded) -> bool {
    match &recorded.envelope.fact {
        Fact::Agent(AgentEvent::EffectIntended { intent: Intent::Approval(_), .. }) => true,
        Fact::Agent(AgentEvent::EffectEnded { result, .. }) => match result {
            EffectResult::Done(answer) => matches!(answer, Answer::Approval(_)),
            EffectResult::Failed(_) | EffectResult::Unknown(_) => true,
        },
        _ => false,
    }
}

fn where_it_stands(wanted: Seq, facts: &[Recorded], ended: bool) -> Question {
    let mut question = Question::NeverAsked;
    for recorded in facts {
        match &recorded.envelope.fact {
            Fact::Agent(AgentEvent::EffectIntended { seq, .. }) if *seq == wanted => question = Question::Waits,
            Fact::Agent(AgentEvent::EffectEnded { seq, result, .. }) if *seq == wanted => {
                question = match (question, result) {
                    (Question::NeverAsked, _) => Question::NeverAsked,
                    (_, EffectResult::Done(Answer::Approval(decision))) => Question::Answered(decision.clone()),
                    (_, EffectResult::Done(_) | EffectResult::Failed(_) | EffectResult::Unknown(_)) => Question::Over,
                };
            }
            _ => {}
        }
    }
    match question {
        Question::Waits if ended => Question::Over,
        question => question,
    }
}

fn settle(approval: ApprovalId, given: &Decision, counts: &Decision) -> Result<(), Refusal> {
    if given == counts {
        return Ok(());
    }
    let word = if counts.approved { "approved" } else { "denied" };
    Err(not_waiting(approval, &format!("it was {word} by {} before", counts.by)))
}

fn not_waiting(approval: ApprovalId, why: &str) -> Refusal {
    Refusal::new(Reason::NotWaiting, format!("the approval does not wait for an answer: {why}"))
        .about("approval", approval)
}
