//! Conversations with questions, read from LoCoMo's JSON.
//!
//! One conversation is one agent; its sessions are days of talk with a break after each. A question's evidence is a list of ids
//! such as `D3:7`, the seventh turn of session 3. Some are malformed (`D:11:26`, two in one text): whatever looks like an id is
//! one, and a question with none that there is cannot be scored and is left out.

use std::collections::BTreeMap;
use std::path::Path;

use nexa_event::effect::Role;
use nexa_paging::{Day, MemoryMessage};
use nexa_types::{AgentId, Millis, Timestamp, Version};
use serde_json::Value;

/// A conversation over months.
pub(crate) struct Talk {
    /// What it is called.
    pub name: String,
    /// Whose memory it is.
    pub agent: AgentId,
    /// Its messages; the places in the log are 1 and up.
    pub messages: Vec<MemoryMessage>,
    /// How many messages there are when each session has ended.
    pub breaks: Vec<usize>,
    /// What is asked.
    pub questions: Vec<Question>,
}

/// A question whose evidence is known.
pub(crate) struct Question {
    pub text: String,
    /// Places of the messages that answer it, each once, in order.
    pub gold: Vec<Version>,
    /// 1 to 5.
    pub category: u64,
}

/// What LoCoMo calls its categories.
pub(crate) const CATEGORIES: [&str; 5] = ["multi-hop", "temporal", "open domain", "single hop", "adversarial"];

/// Reads all conversations of a file.
///
/// # Errors
/// In words, for another form.
pub(crate) fn read(path: &Path) -> Result<Vec<Talk>, String> {
    let failed = |why: &dyn std::fmt::Display| format!("cannot read {}: {why}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| failed(&error))?;
    let json: Value = serde_json::from_str(&text).map_err(|error| failed(&error))?;
    let all = json.as_array().ok_or_else(|| failed(&"it is no list of conversations"))?;
    let talks: Vec<Talk> = all.iter().enumerate().map(|(number, talk)| read_talk(number, talk)).collect();
    if talks.iter().all(|talk| talk.questions.is_empty()) {
        return Err(failed(&"no question has evidence in a conversation"));
    }
    Ok(talks)
}

fn read_talk(number: usize, json: &Value) -> Talk {
    let name = text(json, "sample_id").unwrap_or_else(|| format!("conversation {}", number + 1));
    let mut agent = [0; 16];
    agent[15] = number as u8 + 1;
    let mut talk = Talk {
        name,
        agent: AgentId::from_bytes(agent),
        messages: Vec::new(),
        breaks: Vec::new(),
        questions: Vec::new(),
    };
    let mut places: BTreeMap<(u64, u64), Version> = BTreeMap::new();
    let sessions = &json["conversation"];
    for session in 1u64.. {
        let Some(turns) = sessions[format!("session_{session}")].as_array() else {
            // Dates may go on after the last session, and a session may be missing.
            if sessions[format!("session_{}_date_time", session + 1)].is_null() {
                break;
            }
            continue;
        };
        let at = text(sessions, &format!("session_{session}_date_time")).and_then(|said| moment(&said));
        let at = at.unwrap_or_default();
        for (turn, json) in turns.iter().enumerate() {
            let seq = Version(talk.messages.len() as u64 + 1);
            let id = text(json, "dia_id").and_then(|id| ids(&id).first().copied());
            places.insert(id.unwrap_or((session, turn as u64 + 1)), seq);
            talk.messages.push(read_message(json, seq, at));
        }
        talk.breaks.push(talk.messages.len());
    }
    let questions = json["qa"].as_array().map(Vec::as_slice).unwrap_or_default();
    talk.questions = questions.iter().filter_map(|question| read_question(question, &places)).collect();
    talk
}

fn read_message(json: &Value, seq: Version, at: Timestamp) -> MemoryMessage {
    let mut said = text(json, "text").unwrap_or_default();
    if let Some(caption) = text(json, "blip_caption") {
        said = format!("{said} [photo: {caption}]");
    }
    // A token is four bytes of English, nearly. All that hangs on it is how much is returned.
    let tokens = said.len().div_ceil(4) as u32;
    MemoryMessage { seq, role: Role::User, speaker: text(json, "speaker").unwrap_or_default(), text: said, at, tokens }
}

fn read_question(json: &Value, places: &BTreeMap<(u64, u64), Version>) -> Option<Question> {
    let evidence = json["evidence"].as_array()?.iter().filter_map(Value::as_str);
    let mut gold: Vec<Version> = evidence.flat_map(ids).filter_map(|id| places.get(&id).copied()).collect();
    gold.sort_unstable();
    gold.dedup();
    let category = json["category"].as_u64().unwrap_or(0);
    (!gold.is_empty()).then_some(Question { text: text(json, "question")?, gold, category })
}

fn text(json: &Value, field: &str) -> Option<String> {
    json[field].as_str().map(str::to_owned)
}

/// All that looks like `D3:7` or `D:3:7`.
fn ids(text: &str) -> Vec<(u64, u64)> {
    let number = |text: &str| {
        let digits = text.len() - text.trim_start_matches(|letter: char| letter.is_ascii_digit()).len();
        text[..digits].parse().ok()
    };
    let id = |rest: &str| {
        let rest = rest.strip_prefix(':').unwrap_or(rest);
        let (session, turn) = rest.split_once(':')?;
        session.bytes().all(|byte| byte.is_ascii_digit()).then_some(())?;
        Some((number(session)?, number(turn)?))
    };
    text.split('D').skip(1).filter_map(id).collect()
}

/// `4:04 pm on 20 January, 2023`.
fn moment(said: &str) -> Option<Timestamp> {
    let (clock, date) = said.split_once(" on ")?;
    let mut date = date.split([' ', ',']).filter(|word| !word.is_empty());
    let day = date.next()?.parse().ok()?;
    let month = date.next()?;
    let months = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    let month = months.iter().position(|name| month.to_lowercase().starts_with(name))? as u32 + 1;
    let year = date.next()?.parse().ok()?;
    let (time, half) = clock.trim().split_once(' ')?;
    let (hour, minute) = time.split_once(':')?;
    let hour = hour.parse::<u64>().ok()? % 12 + if half == "pm" { 12 } else { 0 };
    let minutes = hour * 60 + minute.parse::<u64>().ok()?;
    Some(Day { year, month, day }.begin().after(Millis(minutes * 60_000)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_is_read_also_where_it_is_malformed() {
        assert_eq!(ids("D3:7"), [(3, 7)]);
        assert_eq!(ids("D8:6; D9:17"), [(8, 6), (9, 17)]);
        assert_eq!(ids("D:11:26"), [(11, 26)]);
        assert_eq!(ids("D30:05"), [(30, 5)]);
        assert!(ids("D").is_empty() && ids("").is_empty() && ids("D:").is_empty());
    }

    #[test]
    fn a_session_is_at_the_time_that_it_says() {
        let at = moment("4:04 pm on 20 January, 2023").unwrap();
        assert_eq!((at, Day::of(at).in_words().as_str()), (Timestamp(1_674_230_640_000), "20 january 2023"));
        assert_eq!(moment("12:30 am on 1 May, 2022").map(|at| Day::of(at).in_words()), Some("1 may 2022".to_owned()));
        assert_eq!(moment("some day"), None);
    }

    #[test]
    fn a_conversation_is_read_with_what_can_be_scored() {
        let json = serde_json::json!({
            "sample_id": "x",
            "conversation": {
                "session_1_date_time": "4:04 pm on 20 January, 2023",
                "session_1": [
                    { "speaker": "A", "dia_id": "D1:1", "text": "hello" },
                    { "speaker": "B", "dia_id": "D1:2", "text": "look", "blip_caption": "a dog" }
                ],
                "session_2_date_time": "5:00 pm on 21 January, 2023",
                "session_2": [{ "speaker": "A", "dia_id": "D2:1", "text": "bye" }]
            },
            "qa": [
                { "question": "who?", "evidence": ["D1:2", "D2:1", "D1:2"], "category": 4 },
                { "question": "lost", "evidence": [], "category": 1 },
                { "question": "nowhere", "evidence": ["D9:9"], "category": 1 }
            ]
        });
        let talk = read_talk(0, &json);
        assert_eq!((talk.messages.len(), talk.breaks.as_slice()), (3, &[2, 3][..]));
        assert_eq!(talk.messages[1].text, "look [photo: a dog]");
        assert_eq!(talk.questions.len(), 1);
        assert_eq!(talk.questions[0].gold, [Version(2), Version(3)]);
    }
}
