//! From messages to commands and queries. A wrong field is refused by its name.

use std::str::FromStr;
use std::sync::Arc;

use nexa_event::fact::OnFailure;
use nexa_lang::{AgentSpec, Needs};
use nexa_ports::view::{PAGE_ITEMS_MAX, Page};
use nexa_proto::refusal::Refusal;
use nexa_proto::{convert, v1};
use nexa_types::{AgentState, GlobalSeq, IdError, NodeId, RequestId, Waiting, WorkloadState};

use crate::mediator as m;

/// The priority of a workload that has none.
const PRIORITY_DEFAULT: u8 = 128;

pub(super) type Decoded<T> = Result<T, Refusal>;

fn request_id(text: &str) -> Decoded<RequestId> {
    convert::request_id(text)
        .ok_or_else(|| Refusal::field("request_id", "is not a UUID").hint("make a new UUID for each new request"))
}

pub(super) fn id<T: FromStr<Err = IdError>>(field: &str, text: &str) -> Decoded<T> {
    text.parse().map_err(|error: IdError| Refusal::field(field, format!("expected {}", error.expected)))
}

fn optional_id<T: FromStr<Err = IdError>>(field: &str, text: &str) -> Decoded<Option<T>> {
    if text.is_empty() { Ok(None) } else { id(field, text).map(Some) }
}

fn page(size: i32, token: String) -> Decoded<Page> {
    let size = usize::try_from(size).map_err(|_| Refusal::field("page_size", "is negative"))?;
    Ok(Page { size: size.min(PAGE_ITEMS_MAX), token: (!token.is_empty()).then_some(token) })
}

pub(super) fn unknown(field: &str, number: i32) -> Refusal {
    Refusal::field(field, format!("{number} is no value of it"))
}

fn source(source: v1::Source) -> m::ProgramText {
    m::ProgramText::Source { name: source.name, text: source.text.into() }
}

pub(super) fn put_program(message: v1::ProgramServicePutRequest) -> Decoded<m::PutProgram> {
    use v1::program_service_put_request::Program;
    let program = match message.program {
        Some(Program::Source(text)) => source(text),
        Some(Program::Module(bytes)) => m::ProgramText::Module(bytes.into()),
        None => return Err(Refusal::field("program", "is missing")),
    };
    Ok(m::PutProgram { request: request_id(&message.request_id)?, program, name: message.name })
}

pub(super) fn get_program(message: v1::ProgramServiceGetRequest) -> Decoded<m::GetProgram> {
    Ok(m::GetProgram { module: id("module_hash", &message.module_hash)? })
}

pub(super) fn list_programs(message: v1::ProgramServiceListRequest) -> Decoded<m::ListPrograms> {
    Ok(m::ListPrograms { page: page(message.page_size, message.page_token)?, min_seq: GlobalSeq(message.min_seq) })
}

pub(super) fn submit(message: v1::WorkloadServiceSubmitRequest) -> Decoded<m::Submit> {
    use v1::workload_service_submit_request::Program;
    let (entry, input) = (message.entry, Arc::from(message.input_json));
    let what = match message.program {
        Some(Program::Source(text)) => m::What::Program { program: source(text), entry, input },
        Some(Program::ModuleHash(hash)) => m::What::Kept { module: id("module_hash", &hash)?, entry, input },
        Some(Program::AgentList(list)) => {
            for (field, text) in [("entry", &*entry), ("input_json", &*input)] {
                if !text.is_empty() {
                    return Err(Refusal::field(field, "does not go with a list of agents"));
                }
            }
            agent_list(list)?
        }
        None => return Err(Refusal::field("program", "is missing")),
    };
    let priority = match message.priority {
        None => PRIORITY_DEFAULT,
        Some(priority) => u8::try_from(priority).map_err(|_| Refusal::field("priority", "is more than 255"))?,
    };
    Ok(m::Submit {
        request: request_id(&message.request_id)?,
        what,
        name: message.name,
        priority,
        budget: message.budget.unwrap_or_default().into(),
    })
}

fn agent_list(list: v1::AgentList) -> Decoded<m::What> {
    let on_failure = match v1::OnFailure::try_from(list.on_failure) {
        Ok(v1::OnFailure::Unspecified | v1::OnFailure::FailFast) => OnFailure::FailFast,
        Ok(v1::OnFailure::SkipDependents) => OnFailure::SkipDependents,
        Ok(v1::OnFailure::Continue) => OnFailure::Continue,
        Err(_) => return Err(unknown("agent_list.on_failure", list.on_failure)),
    };
    let agents: Decoded<_> = list.agents.into_iter().enumerate().map(listed_agent).collect();
    Ok(m::What::List { agents: agents?, on_failure })
}

fn listed_agent((index, agent): (usize, v1::AgentSpec)) -> Decoded<m::ListedAgent> {
    let default = AgentSpec::default();
    let priority = match agent.priority {
        None => default.priority,
        Some(priority) => u8::try_from(priority)
            .map_err(|_| Refusal::field(format!("agent_list.agents[{index}].priority"), "is more than 255"))?,
    };
    let needs = agent.needs.unwrap_or_default();
    let needs = Needs { cpu_milli: needs.cpu_milli, memory_mib: needs.memory_mib, llm_slots: needs.llm_slots };
    let spec = AgentSpec {
        id: agent.id,
        name: agent.name,
        role: agent.role,
        prompt: agent.prompt,
        models: agent.models,
        temperature: agent.temperature.unwrap_or(default.temperature),
        top_p: agent.top_p.unwrap_or(default.top_p),
        max_tokens: agent.max_tokens.unwrap_or(default.max_tokens),
        seed: agent.seed,
        stop: agent.stop,
        budget: agent.budget.unwrap_or_default().into(),
        timeout_ms: agent.timeout_ms.unwrap_or(default.timeout_ms),
        retry_max: agent.retry_max.unwrap_or(default.retry_max),
        stream: agent.stream,
        priority,
        estimated_duration_ms: agent.estimated_duration_ms,
        weight: agent.weight,
        gang: agent.gang,
        needs,
        labels: agent.labels.into_iter().collect(),
    };
    Ok(m::ListedAgent { spec, input: agent.input_json, after: agent.after })
}

pub(super) fn get_workload(message: v1::WorkloadServiceGetRequest) -> Decoded<m::GetWorkload> {
    Ok(m::GetWorkload { workload: id("workload_id", &message.workload_id)? })
}

pub(super) fn get_plan(message: v1::WorkloadServiceGetPlanRequest) -> Decoded<m::GetPlan> {
    Ok(m::GetPlan { workload: id("workload_id", &message.workload_id)? })
}

pub(super) fn list_workloads(message: v1::WorkloadServiceListRequest) -> Decoded<m::ListWorkloads> {
    let state = v1::WorkloadState::try_from(message.state).map_err(|_| unknown("state", message.state))?;
    let state: Option<WorkloadState> = convert::workload_state(state);
    let page = page(message.page_size, message.page_token)?;
    Ok(m::ListWorkloads { page, state, min_seq: GlobalSeq(message.min_seq) })
}

fn watch_from(cursor: Vec<u8>, from_start: bool) -> Decoded<m::WatchFrom> {
    match (cursor.is_empty(), from_start) {
        (true, false) => Ok(m::WatchFrom::Snapshot),
        (true, true) => Ok(m::WatchFrom::Start),
        (false, false) => Ok(m::WatchFrom::Cursor(cursor)),
        (false, true) => Err(Refusal::field("from_start", "does not go with a cursor")),
    }
}

pub(super) fn watch_workload(message: v1::WorkloadServiceWatchRequest) -> Decoded<m::WatchWorkload> {
    Ok(m::WatchWorkload {
        workload: id("workload_id", &message.workload_id)?,
        from: watch_from(message.cursor, message.from_start)?,
        chunks: message.chunks,
    })
}

pub(super) fn cancel(message: v1::WorkloadServiceCancelRequest) -> Decoded<m::Cancel> {
    Ok(m::Cancel {
        request: request_id(&message.request_id)?,
        workload: id("workload_id", &message.workload_id)?,
        reason: message.reason,
    })
}

pub(super) fn get_agent(message: v1::AgentServiceGetRequest) -> Decoded<m::GetAgent> {
    Ok(m::GetAgent { agent: id("agent_id", &message.agent_id)? })
}

pub(super) fn list_agents(message: v1::AgentServiceListRequest) -> Decoded<m::ListAgents> {
    let state = v1::AgentState::try_from(message.state).map_err(|_| unknown("state", message.state))?;
    Ok(m::ListAgents {
        page: page(message.page_size, message.page_token)?,
        workload: optional_id("workload_id", &message.workload_id)?,
        states: states(state),
        min_seq: GlobalSeq(message.min_seq),
    })
}

/// The states that one state of the surface stands for: waiting is waiting, whatever for.
fn states(state: v1::AgentState) -> Vec<AgentState> {
    use Waiting::{Approval, Children, Message, Model, Timer, Tool};
    match state {
        v1::AgentState::Unspecified => Vec::new(),
        v1::AgentState::Waiting => [Model, Approval, Timer, Children, Message, Tool].map(AgentState::Waiting).to_vec(),
        other => convert::agent_state(other, v1::WaitingFor::Unspecified).into_iter().collect(),
    }
}

pub(super) fn watch_agent(message: v1::AgentServiceWatchRequest) -> Decoded<m::WatchAgent> {
    Ok(m::WatchAgent {
        agent: id("agent_id", &message.agent_id)?,
        from: watch_from(message.cursor, message.from_start)?,
        chunks: message.chunks,
    })
}

pub(super) fn send(message: v1::AgentServiceSendRequest) -> Decoded<m::SendMessage> {
    Ok(m::SendMessage {
        request: request_id(&message.request_id)?,
        agent: id("agent_id", &message.agent_id)?,
        value: message.value_json.into(),
    })
}

pub(super) fn snapshot(message: v1::AgentServiceSnapshotRequest) -> Decoded<m::Snapshot> {
    Ok(m::Snapshot { agent: id("agent_id", &message.agent_id)? })
}

pub(super) fn list_approvals(message: v1::ApprovalServiceListRequest) -> Decoded<m::ListApprovals> {
    Ok(m::ListApprovals {
        page: page(message.page_size, message.page_token)?,
        workload: optional_id("workload_id", &message.workload_id)?,
        min_seq: GlobalSeq(message.min_seq),
    })
}

pub(super) fn answer_approval(message: v1::ApprovalServiceAnswerRequest) -> Decoded<m::AnswerApproval> {
    let approval = m::ApprovalId::parse(&message.approval_id)
        .ok_or_else(|| Refusal::field("approval_id", "expected an agent id, `/` and a number"))?;
    Ok(m::AnswerApproval {
        request: request_id(&message.request_id)?,
        approval,
        approved: message.approved,
        note: message.note,
    })
}

pub(super) fn search_history(message: v1::HistoryServiceSearchRequest) -> Decoded<m::SearchHistory> {
    Ok(m::SearchHistory {
        page: page(message.page_size, message.page_token)?,
        words: message.query,
        workload: optional_id("workload_id", &message.workload_id)?,
        min_seq: GlobalSeq(message.min_seq),
    })
}

fn node(text: &str) -> Decoded<NodeId> {
    NodeId::new(text).map_err(|error| Refusal::field("node", error.to_string()))
}

pub(super) fn migrate(message: v1::AgentServiceMigrateRequest) -> Decoded<m::Migrate> {
    let to = if message.node.is_empty() { None } else { Some(node(&message.node)?) };
    Ok(m::Migrate { agent: id("agent_id", &message.agent_id)?, to })
}

pub(super) fn list_nodes(_: v1::ClusterServiceListNodesRequest) -> Decoded<m::ListNodes> {
    Ok(m::ListNodes)
}

pub(super) fn watch_nodes(_: v1::ClusterServiceWatchRequest) -> Decoded<m::WatchNodes> {
    Ok(m::WatchNodes)
}

pub(super) fn cordon(message: v1::ClusterServiceCordonRequest) -> Decoded<m::Cordon> {
    Ok(m::Cordon { node: node(&message.node)?, undo: message.undo })
}

pub(super) fn drain(message: v1::ClusterServiceDrainRequest) -> Decoded<m::Drain> {
    Ok(m::Drain { node: node(&message.node)? })
}

pub(super) fn rebalance(_: v1::ClusterServiceRebalanceRequest) -> Decoded<m::Rebalance> {
    Ok(m::Rebalance)
}

pub(super) fn list_formats(_: v1::ClusterServiceListFormatsRequest) -> Decoded<m::ListFormats> {
    Ok(m::ListFormats)
}

pub(super) fn raise_format(message: v1::ClusterServiceRaiseFormatRequest) -> Decoded<m::RaiseFormat> {
    let format = u16::try_from(message.format).ok().filter(|format| *format > 0);
    let format = format.ok_or_else(|| Refusal::field("format", format!("expected a number from 1 to {}", u16::MAX)))?;
    Ok(m::RaiseFormat { format })
}
