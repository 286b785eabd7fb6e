//! The byte-level state machine over a schema.

use std::ops::ControlFlow;

use super::number::{NumberShape, Written};
use super::schema::{ANY_DEPTH_MAX, DEPTH_MAX};

pub(super) type NodeId = u16;

/// The most bytes written without asking the model in one go.
const FORCED_BYTES_MAX: usize = 4096;

/// One part of a schema.
#[derive(Debug, Clone)]
pub(super) enum Node {
    /// Properties in order; those that are not required may be skipped.
    Object(Vec<Property>),
    /// Between `min` and `max` items of one kind.
    Array { item: NodeId, min: u16, max: u16 },
    /// At most `max` entries of one kind, with keys of the model's choice.
    Map { key: NodeId, value: NodeId, max: u16 },
    /// A string of so many characters.
    Text { min: u16, max: u16 },
    /// A number.
    Number(NumberShape),
    /// One of some literals.
    Choice(Vec<Box<[u8]>>),
    /// One of some parts that differ in their first byte.
    Union(Vec<NodeId>),
}

#[derive(Debug, Clone)]
pub(super) struct Property {
    /// The quoted name and what separates it from the value.
    pub(super) key: Box<[u8]>,
    pub(super) value: NodeId,
    pub(super) is_required: bool,
}

/// A schema, ready to guide. Made by [`Grammar::from_schema`].
#[derive(Debug, Clone, Default)]
pub struct Grammar {
    nodes: Vec<Node>,
    /// The shortest document of each node.
    shortest: Vec<Box<[u8]>>,
    pub(super) root: NodeId,
}

/// Where in a document the model is. Small and copied freely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    frames: [Frame; FRAMES_MAX],
    depth: u8,
    at: At,
}

/// Open objects, lists and dicts: those of the schema and those inside a value of any type.
const FRAMES_MAX: usize = 2 * DEPTH_MAX + ANY_DEPTH_MAX as usize + 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Frame {
    node: NodeId,
    /// Of an object: the first property that may still come. Otherwise: how many there are.
    count: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// A value begins.
    Value(NodeId),
    /// Within one of some literals: the first that fits so far, and how much of it is written.
    Choice { node: NodeId, fits: u16, len: u16 },
    /// Within a number.
    Number { node: NodeId, written: Written },
    /// Within a string.
    Text { node: NodeId, chars: u16, inside: Inside },
    /// Before or within a property's name: the first that fits so far, and how much of it is written.
    Key { fits: u16, len: u16 },
    /// After a list's or dict's opening bracket.
    First,
    /// After an item or entry; `true` once its comma is written.
    Next(bool),
    /// After a dict's key; `true` once its colon is written.
    Colon(bool),
    /// The document is complete.
    Done,
}

/// What part of a character is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Inside {
    Plain,
    Escape,
    /// So many bytes of a character are missing, the next of which lies between these.
    Character {
        missing: u8,
        low: u8,
        high: u8,
    },
}

impl Grammar {
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Adds a node whose parts have been added before.
    pub(super) fn add(&mut self, node: Node) -> NodeId {
        let shortest = self.shortest_of(&node);
        self.nodes.push(node);
        self.shortest.push(shortest.into());
        NodeId::try_from(self.nodes.len() - 1).expect("the schema's reader bounds the number of nodes")
    }

    /// The state before the first byte.
    pub fn start(&self) -> State {
        State { frames: [Frame::default(); FRAMES_MAX], depth: 0, at: At::Value(self.root) }
    }

    /// The state after one more byte, or `None` if it cannot come here.
    pub fn step(&self, mut state: State, byte: u8) -> Option<State> {
        match state.at {
            At::Done => None,
            At::Value(node) => self.begin(state, node, byte),
            At::Choice { node, fits, len } => match self.choose(node, fits, len, byte) {
                Some(fits) => Some(self.settle_choice(state, node, fits, len + 1)),
                None if self.may_end(&state) => self.step(self.finish(state)?, byte),
                None => None,
            },
            At::Number { node, written } => match self.number(node).step(written, byte) {
                Some(written) => {
                    state.at = At::Number { node, written };
                    Some(state)
                }
                None if self.may_end(&state) => self.step(self.finish(state)?, byte),
                None => None,
            },
            At::Text { node, chars, inside } => self.step_text(state, node, chars, inside, byte),
            At::Key { fits, len } => self.step_key(state, fits, len, byte),
            At::First => match self.node(state.top().node) {
                Node::Array { min: 0, .. } if byte == b']' => self.close(state),
                Node::Array { item, max, .. } if *max > 0 => self.begin(state, *item, byte),
                Node::Map { .. } if byte == b'}' => self.close(state),
                Node::Map { key, max, .. } if *max > 0 => self.begin(state, *key, byte),
                _ => None,
            },
            At::Next(comma) => {
                let count = state.top().count;
                match (self.node(state.top().node), byte, comma) {
                    (Node::Array { min, .. }, b']', false) if count >= *min => self.close(state),
                    (Node::Map { .. }, b'}', false) => self.close(state),
                    (Node::Array { max, .. } | Node::Map { max, .. }, b',', false) if count < *max => {
                        state.at = At::Next(true);
                        Some(state)
                    }
                    (Node::Array { item: next, .. } | Node::Map { key: next, .. }, b' ', true) => {
                        state.at = At::Value(*next);
                        Some(state)
                    }
                    _ => None,
                }
            }
            At::Colon(false) if byte == b':' => {
                state.at = At::Colon(true);
                Some(state)
            }
            At::Colon(true) if byte == b' ' => match self.node(state.top().node) {
                Node::Map { value, .. } => {
                    state.at = At::Value(*value);
                    Some(state)
                }
                _ => None,
            },
            At::Colon(_) => None,
        }
    }

    /// The state after some bytes, or `None` if one of them cannot come.
    pub fn feed(&self, state: State, bytes: &[u8]) -> Option<State> {
        bytes.iter().try_fold(state, |state, byte| self.step(state, *byte))
    }

    /// Whether what is written is a whole document.
    pub fn is_complete(&self, state: &State) -> bool {
        state.at == At::Done || (state.depth == 0 && self.may_end(state))
    }

    /// The bytes that must come next, because at each of them there is no other choice.
    pub fn forced(&self, state: &State) -> Vec<u8> {
        let mut state = *state;
        let mut bytes = Vec::new();
        while bytes.len() < FORCED_BYTES_MAX && !self.is_complete(&state) {
            let only = (0..=255).try_fold(None, |only, byte| match (self.step(state, byte), only) {
                (None, only) => ControlFlow::Continue(only),
                (Some(next), None) => ControlFlow::Continue(Some((byte, next))),
                (Some(_), Some(_)) => ControlFlow::Break(()),
            });
            match only {
                ControlFlow::Continue(Some((byte, next))) => {
                    bytes.push(byte);
                    state = next;
                }
                ControlFlow::Continue(None) | ControlFlow::Break(()) => break,
            }
        }
        bytes
    }

    /// The fewest bytes that complete the document.
    pub fn closing(&self, state: &State) -> Vec<u8> {
        let mut state = *state;
        let mut bytes = Vec::new();
        while !self.is_complete(&state) {
            let ends_here = self.may_end(&state);
            let next = if ends_here { Vec::new() } else { self.closing_here(&state) };
            let after = if ends_here { self.finish(state) } else { self.feed(state, &next) };
            debug_assert!(after.is_some(), "CN-1: a reachable state can be completed, at {state:?} with {next:?}");
            let Some(after) = after else { break };
            bytes.extend(next);
            state = after;
        }
        bytes
    }

    /// Whether a value of this node can begin with this byte.
    pub(super) fn begins(&self, node: NodeId, byte: u8) -> bool {
        self.begin(self.start(), node, byte).is_some()
    }

    fn node(&self, id: NodeId) -> &Node {
        &self.nodes[usize::from(id)]
    }

    fn number(&self, id: NodeId) -> NumberShape {
        match self.node(id) {
            Node::Number(shape) => *shape,
            _ => NumberShape::integer(None, None),
        }
    }

    fn literals(&self, id: NodeId) -> &[Box<[u8]>] {
        match self.node(id) {
            Node::Choice(literals) => literals,
            _ => &[],
        }
    }

    fn properties(&self, id: NodeId) -> &[Property] {
        match self.node(id) {
            Node::Object(properties) => properties,
            _ => &[],
        }
    }

    fn begin(&self, mut state: State, id: NodeId, byte: u8) -> Option<State> {
        match (self.node(id), byte) {
            (Node::Object(_), b'{') => state.open(id, At::Key { fits: 0, len: 0 }),
            (Node::Array { .. }, b'[') | (Node::Map { .. }, b'{') => state.open(id, At::First),
            (Node::Text { .. }, b'"') => {
                state.at = At::Text { node: id, chars: 0, inside: Inside::Plain };
                Some(state)
            }
            (Node::Number(shape), _) => {
                state.at = At::Number { node: id, written: shape.step(Written::default(), byte)? };
                Some(state)
            }
            (Node::Choice(_), _) => {
                let fits = self.choose(id, 0, 0, byte)?;
                Some(self.settle_choice(state, id, fits, 1))
            }
            (Node::Union(alternatives), _) => {
                alternatives.iter().find_map(|alternative| self.begin(state, *alternative, byte))
            }
            _ => None,
        }
    }

    /// The first literal that shares the first `len` bytes with literal `fits` and goes on with `byte`.
    fn choose(&self, node: NodeId, fits: u16, len: u16, byte: u8) -> Option<u16> {
        let literals = self.literals(node);
        let len = usize::from(len);
        let written = literals.get(usize::from(fits))?.get(..len)?;
        let found =
            literals.iter().position(|literal| literal.starts_with(written) && literal.get(len) == Some(&byte))?;
        u16::try_from(found).ok()
    }

    fn settle_choice(&self, mut state: State, node: NodeId, fits: u16, len: u16) -> State {
        state.at = At::Choice { node, fits, len };
        let written = self.literals(node)[usize::from(fits)].get(..usize::from(len)).unwrap_or_default();
        let is_last =
            self.literals(node).iter().all(|literal| !literal.starts_with(written) || literal.len() == written.len());
        if is_last { self.finish(state).unwrap_or(state) } else { state }
    }

    fn step_text(&self, mut state: State, node: NodeId, chars: u16, inside: Inside, byte: u8) -> Option<State> {
        let Node::Text { min, max } = self.node(node) else { return None };
        let character = |missing, low, high| (chars + 1, Inside::Character { missing, low, high });
        let (chars, inside) = match (inside, byte) {
            (Inside::Plain, b'"') if chars >= *min => return self.finish(state),
            (Inside::Plain, _) if chars >= *max => return None,
            (Inside::Plain, b'\\') => (chars, Inside::Escape),
            (Inside::Plain, b'"' | 0x7F) => return None,
            (Inside::Plain, 0x20..=0x7E) => (chars + 1, Inside::Plain),
            (Inside::Plain, 0xC2..=0xDF) => character(1, 0x80, 0xBF),
            (Inside::Plain, 0xE0) => character(2, 0xA0, 0xBF),
            (Inside::Plain, 0xED) => character(2, 0x80, 0x9F),
            (Inside::Plain, 0xE1..=0xEF) => character(2, 0x80, 0xBF),
            (Inside::Plain, 0xF0) => character(3, 0x90, 0xBF),
            (Inside::Plain, 0xF1..=0xF3) => character(3, 0x80, 0xBF),
            (Inside::Plain, 0xF4) => character(3, 0x80, 0x8F),
            (Inside::Escape, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => (chars + 1, Inside::Plain),
            (Inside::Character { missing, low, high }, _) if (low..=high).contains(&byte) => match missing {
                1 => (chars, Inside::Plain),
                _ => (chars, Inside::Character { missing: missing - 1, low: 0x80, high: 0xBF }),
            },
            _ => return None,
        };
        state.at = At::Text { node, chars, inside };
        Some(state)
    }

    fn step_key(&self, mut state: State, fits: u16, len: u16, byte: u8) -> Option<State> {
        let frame = state.top();
        let properties = self.properties(frame.node);
        let rest = properties.get(usize::from(frame.count)..).unwrap_or_default();
        if len == 0 && byte == b'}' {
            return if rest.iter().any(|property| property.is_required) { None } else { self.close(state) };
        }
        // A required property ends the row of those that may come now.
        let candidates =
            1 + rest.iter().position(|property| property.is_required).unwrap_or(rest.len().checked_sub(1)?);
        let comma: &[u8] = if frame.count == 0 { b"" } else { b", " };
        let letter = |property: &Property, at: usize| -> Option<u8> {
            comma.get(at).or_else(|| property.key.get(at.checked_sub(comma.len())?)).copied()
        };
        let len = usize::from(len);
        let fitting = &rest[usize::from(fits).min(rest.len() - 1)];
        let found = rest.iter().take(candidates).position(|property| {
            letter(property, len) == Some(byte) && (0..len).all(|at| letter(property, at) == letter(fitting, at))
        })?;
        let is_whole = len + 1 == comma.len() + rest[found].key.len();
        if is_whole {
            state.top_mut().count = frame.count + u16::try_from(found).ok()? + 1;
            state.at = At::Value(rest[found].value);
        } else {
            state.at = At::Key { fits: u16::try_from(found).ok()?, len: u16::try_from(len + 1).ok()? };
        }
        Some(state)
    }

    /// Whether the value that is being written may end without a byte of its own to say so.
    fn may_end(&self, state: &State) -> bool {
        match state.at {
            At::Number { node, written } => self.number(node).may_end(written),
            At::Choice { node, fits, len } => {
                let literals = self.literals(node);
                let written = literals[usize::from(fits)].get(..usize::from(len)).unwrap_or_default();
                literals.iter().any(|literal| **literal == *written)
            }
            _ => false,
        }
    }

    /// The state after a value.
    fn finish(&self, mut state: State) -> Option<State> {
        if state.depth == 0 {
            state.at = At::Done;
            return Some(state);
        }
        let is_key = matches!((self.node(state.top().node), state.at), (Node::Map { key, .. }, At::Text { node, .. }) if *key == node);
        match self.node(state.top().node) {
            Node::Object(_) => state.at = At::Key { fits: 0, len: 0 },
            Node::Map { .. } if is_key => state.at = At::Colon(false),
            _ => {
                state.top_mut().count += 1;
                state.at = At::Next(false);
            }
        }
        Some(state)
    }

    fn close(&self, mut state: State) -> Option<State> {
        state.depth = state.depth.checked_sub(1)?;
        state.frames[usize::from(state.depth)] = Frame::default();
        // The bracket that closed it must not be taken for a dict's key.
        state.at = At::Done;
        self.finish(state)
    }

    /// Bytes towards the end, from a state that needs some.
    fn closing_here(&self, state: &State) -> Vec<u8> {
        let frame = state.top();
        match state.at {
            At::Value(node) => self.shortest[usize::from(node)].to_vec(),
            At::Choice { node, fits, len } => {
                let literals = self.literals(node);
                let written = literals[usize::from(fits)].get(..usize::from(len)).unwrap_or_default();
                let fitting = literals.iter().filter(|literal| literal.starts_with(written));
                fitting.min_by_key(|literal| literal.len()).map(|it| it[written.len()..].to_vec()).unwrap_or_default()
            }
            At::Number { node, written } => self.number(node).closing(written),
            At::Text { node, chars, inside } => {
                let Node::Text { min, .. } = self.node(node) else { return Vec::new() };
                let (chars, mut bytes) = match inside {
                    Inside::Plain => (chars, Vec::new()),
                    Inside::Escape => (chars + 1, b"n".to_vec()),
                    Inside::Character { missing, low, .. } => (
                        chars,
                        std::iter::once(low).chain(std::iter::repeat(0x80)).take(usize::from(missing)).collect(),
                    ),
                };
                bytes.extend(std::iter::repeat_n(b' ', usize::from(min.saturating_sub(chars))));
                bytes.push(b'"');
                bytes
            }
            At::Key { fits, len } => {
                let rest = self.properties(frame.node).get(usize::from(frame.count)..).unwrap_or_default();
                let needed = rest.iter().position(|property| property.is_required);
                let next = if len == 0 { needed } else { Some(usize::from(fits)) };
                let Some(property) = next.and_then(|next| rest.get(next)) else { return b"}".to_vec() };
                let comma: &[u8] = if frame.count == 0 { b"" } else { b", " };
                [comma, &property.key].concat().get(usize::from(len)..).unwrap_or_default().to_vec()
            }
            At::First => match self.node(frame.node) {
                Node::Array { item, min, .. } if *min > 0 => self.shortest[usize::from(*item)].to_vec(),
                Node::Map { .. } => b"}".to_vec(),
                _ => b"]".to_vec(),
            },
            At::Next(false) => match self.node(frame.node) {
                Node::Array { min, .. } if frame.count < *min => b", ".to_vec(),
                Node::Map { .. } => b"}".to_vec(),
                _ => b"]".to_vec(),
            },
            At::Next(true) => b" ".to_vec(),
            At::Colon(false) => b": ".to_vec(),
            At::Colon(true) => b" ".to_vec(),
            At::Done => Vec::new(),
        }
    }

    fn shortest_of(&self, node: &Node) -> Vec<u8> {
        let short = |id: &NodeId| self.shortest[usize::from(*id)].to_vec();
        match node {
            Node::Object(properties) => {
                let required = properties.iter().filter(|property| property.is_required);
                let entries: Vec<Vec<u8>> =
                    required.map(|property| [property.key.to_vec(), short(&property.value)].concat()).collect();
                [b"{".to_vec(), entries.join(b", ".as_slice()), b"}".to_vec()].concat()
            }
            Node::Array { item, min, .. } => {
                [b"[".to_vec(), vec![short(item); usize::from(*min)].join(b", ".as_slice()), b"]".to_vec()].concat()
            }
            Node::Map { .. } => b"{}".to_vec(),
            Node::Text { min, .. } => [b"\"".to_vec(), vec![b' '; usize::from(*min)], b"\"".to_vec()].concat(),
            Node::Number(shape) => shape.closing(Written::default()),
            Node::Choice(literals) => {
                literals.iter().min_by_key(|it| it.len()).map(|it| it.to_vec()).unwrap_or_default()
            }
            Node::Union(alternatives) => alternatives.iter().map(short).min_by_key(Vec::len).unwrap_or_default(),
        }
    }
}

impl State {
    fn top(&self) -> Frame {
        self.depth.checked_sub(1).map(|top| self.frames[usize::from(top)]).unwrap_or_default()
    }

    fn top_mut(&mut self) -> &mut Frame {
        &mut self.frames[usize::from(self.depth.saturating_sub(1))]
    }

    fn open(mut self, node: NodeId, at: At) -> Option<Self> {
        *self.frames.get_mut(usize::from(self.depth))? = Frame { node, count: 0 };
        self.depth += 1;
        self.at = at;
        Some(self)
    }
}
