//! Dicts: entries in insertion order, found by key.
//!
//! A small dict is searched entry by entry. A larger one gets a tree from keys to places the first time it is searched,
//! which inserts keep up to date. A tree and not a hash table: keys come from models and tools, and no choice of keys
//! makes a tree slow, while the keys of a hash function that every node shares would be known to everyone.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use super::{Key, Value};

/// Dicts up to this size are searched entry by entry.
pub(crate) const SEARCHED_MAX: usize = 16;

/// A dict: entries in insertion order, each key once.
#[derive(Debug, Default)]
pub struct Dict {
    entries: Vec<(Key, Value)>,
    /// The bytes of all keys that are texts, so that a dict's size is known without looking at each.
    key_bytes: u64,
    /// The place of each key, made when a large dict is first searched.
    places: OnceLock<BTreeMap<Key, u32>>,
}

impl Dict {
    /// An empty dict with room for some entries.
    pub fn with_capacity(entries: usize) -> Self {
        Self { entries: Vec::with_capacity(entries), ..Self::default() }
    }

    /// The entries, in insertion order.
    pub fn entries(&self) -> &[(Key, Value)] {
        &self.entries
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The value of a key.
    pub fn get(&self, key: &Key) -> Option<&Value> {
        self.place_of(key).and_then(|place| self.value_at(place))
    }

    /// The value of a key that is a text.
    pub fn get_str(&self, name: &str) -> Option<&Value> {
        if self.entries.len() > SEARCHED_MAX {
            return self.get(&Key::Str(name.into()));
        }
        self.entries.iter().find(|(key, _)| matches!(key, Key::Str(text) if &**text == name)).map(|(_, value)| value)
    }

    /// Where a key's entry is.
    pub fn place_of(&self, key: &Key) -> Option<usize> {
        if self.entries.len() > SEARCHED_MAX {
            self.places().get(key).map(|place| *place as usize)
        } else {
            self.entries.iter().position(|(other, _)| other == key)
        }
    }

    /// Puts a value at its key's place, or at the end.
    pub fn insert(&mut self, key: Key, value: Value) {
        match self.place_of(&key) {
            Some(place) => self.put(place, value),
            None => self.append(key, value),
        }
    }

    /// The value of a key; `()` at the end if there was none.
    pub(crate) fn entry(&mut self, key: Key) -> &mut Value {
        let place = match self.place_of(&key) {
            Some(place) => place,
            None => {
                self.append(key, Value::Unit);
                self.entries.len() - 1
            }
        };
        &mut self.entries[place].1
    }

    /// Removes a key's entry. Those after it move up, so this takes time with their number.
    pub fn remove(&mut self, key: &Key) -> Option<Value> {
        let place = self.place_of(key)?;
        let (key, value) = self.entries.remove(place);
        self.key_bytes -= text_bytes(&key);
        if let Some(places) = self.places.get_mut() {
            places.remove(&key);
            if place < self.entries.len() {
                places.values_mut().filter(|other| **other > place as u32).for_each(|other| *other -= 1);
            }
        }
        Some(value)
    }

    /// The bytes of the keys that are texts.
    pub(crate) fn key_bytes(&self) -> u64 {
        self.key_bytes
    }

    /// The value at a place.
    pub(crate) fn value_at(&self, place: usize) -> Option<&Value> {
        self.entries.get(place).map(|(_, value)| value)
    }

    /// Replaces the value at a place, if there is one.
    pub(crate) fn put(&mut self, place: usize, value: Value) {
        if let Some(entry) = self.entries.get_mut(place) {
            entry.1 = value;
        }
    }

    /// The value at a place, to be changed.
    pub(crate) fn value_mut(&mut self, place: usize) -> Option<&mut Value> {
        self.entries.get_mut(place).map(|(_, value)| value)
    }

    /// Puts an entry at the end. Its key is not there yet.
    pub(crate) fn append(&mut self, key: Key, value: Value) {
        if let Some(places) = self.places.get_mut() {
            places.insert(key.clone(), self.entries.len() as u32);
        }
        self.key_bytes += text_bytes(&key);
        super::reserve_a_quarter(&mut self.entries, 1);
        self.entries.push((key, value));
    }

    /// A dict of entries whose keys differ; `None` if one stands twice.
    pub(crate) fn of_distinct(entries: Vec<(Key, Value)>) -> Option<Self> {
        if entries.len() <= SEARCHED_MAX {
            for (index, (key, _)) in entries.iter().enumerate() {
                if entries[..index].iter().any(|(other, _)| other == key) {
                    return None;
                }
            }
        } else {
            let mut keys: Vec<&Key> = entries.iter().map(|(key, _)| key).collect();
            keys.sort_unstable();
            if keys.windows(2).any(|pair| pair[0] == pair[1]) {
                return None;
            }
        }
        let key_bytes = entries.iter().map(|(key, _)| text_bytes(key)).sum();
        Some(Self { entries, key_bytes, places: OnceLock::new() })
    }

    fn places(&self) -> &BTreeMap<Key, u32> {
        self.places.get_or_init(|| {
            self.entries.iter().enumerate().map(|(place, (key, _))| (key.clone(), place as u32)).collect()
        })
    }
}

/// A copy makes its own tree when it is searched: most copies are made to be changed and looked at as a whole.
impl Clone for Dict {
    fn clone(&self) -> Self {
        Self { entries: self.entries.clone(), key_bytes: self.key_bytes, places: OnceLock::new() }
    }
}

impl PartialEq for Dict {
    fn eq(&self, other: &Self) -> bool {
        self.entries == other.entries
    }
}

/// A key that stands twice keeps its first place and its last value.
impl FromIterator<(Key, Value)> for Dict {
    fn from_iter<I: IntoIterator<Item = (Key, Value)>>(entries: I) -> Self {
        let entries = entries.into_iter();
        let mut dict = Self::with_capacity(entries.size_hint().0.min(1024));
        for (key, value) in entries {
            dict.insert(key, value);
        }
        dict
    }
}

fn text_bytes(key: &Key) -> u64 {
    match key {
        Key::Str(text) => crate::vm::heap::text_bytes(text.len()),
        Key::Int(_) | Key::Bool(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

    use proptest::prelude::*;

    use super::*;

    /// The same by the plainest means.
    #[derive(Default)]
    struct Plain(Vec<(Key, Value)>);

    impl Plain {
        fn insert(&mut self, key: Key, value: Value) {
            match self.0.iter_mut().find(|(other, _)| *other == key) {
                Some(entry) => entry.1 = value,
                None => self.0.push((key, value)),
            }
        }
    }

    proptest! {
        #[test]
        fn a_dict_is_a_list_of_entries_that_is_searched_faster(
            steps in proptest::collection::vec((0u8..4, 0i64..60), 0..200),
        ) {
            let (mut dict, mut plain) = (Dict::default(), Plain::default());
            for (step, number) in steps {
                let key = if number % 2 == 0 { Key::Int(number) } else { Key::Str(number.to_string().as_str().into()) };
                match step {
                    0 => {
                        let removed = plain.0.iter().position(|(other, _)| *other == key).map(|at| plain.0.remove(at).1);
                        prop_assert_eq!(dict.remove(&key), removed);
                    }
                    1 => {
                        let found = plain.0.iter().find(|(other, _)| *other == key).map(|(_, value)| value);
                        prop_assert_eq!(dict.get(&key), found);
                    }
                    _ => {
                        plain.insert(key.clone(), Value::Int(number + i64::from(step)));
                        dict.insert(key, Value::Int(number + i64::from(step)));
                    }
                }
                prop_assert_eq!(dict.entries(), plain.0.as_slice());
                prop_assert_eq!(dict.key_bytes(), plain.0.iter().map(|(key, _)| text_bytes(key)).sum::<u64>());
            }
        }
    }

    #[test]
    fn the_tree_is_made_once_and_kept_by_inserts() {
        let mut dict = Dict::default();
        for number in 0..10_000 {
            dict.insert(Key::Int(number), Value::Unit);
        }
        let made = std::ptr::from_ref(dict.places.get().unwrap());
        assert_eq!(dict.places.get().unwrap().len(), 10_000);
        assert_eq!(dict.place_of(&Key::Int(7_000)), Some(7_000));
        assert!(std::ptr::eq(made, dict.places.get().unwrap()));
    }

    #[test]
    fn a_key_that_stands_twice_is_no_dict() {
        for len in [2, 100] {
            let mut entries: Vec<(Key, Value)> = (0..len).map(|number| (Key::Int(number), Value::Unit)).collect();
            assert!(Dict::of_distinct(entries.clone()).is_some());
            entries.push((Key::Int(0), Value::Unit));
            assert!(Dict::of_distinct(entries).is_none());
        }
    }
}
