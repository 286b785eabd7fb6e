//! `[pages]` in nexa.toml: where pages of what agents remember are kept.

use std::path::Path;

use nexa_types::NodeId;
use serde::Deserialize;

/// What is in a URL and not in a path.
const URL: &str = "://";

/// Where pages of what agents remember are kept.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PageSettings {
    /// A folder in which every node has one of its own, by its name, relative to `nexa.toml`; or a URL of one, or of a bucket.
    /// Without it a node by itself has them in its data folder, and one of a cluster in memory.
    pub(crate) folder: Option<String>,
}

impl PageSettings {
    /// The same as seen from elsewhere than `nexa.toml`.
    pub(crate) fn below(self, folder: &Path) -> Self {
        let below = |pages: String| match pages.contains(URL) {
            true => pages,
            false => folder.join(pages).to_string_lossy().into_owned(),
        };
        Self { folder: self.folder.map(below) }
    }

    /// Where one node has its own.
    pub(crate) fn of(&self, node: &NodeId) -> Option<String> {
        let within = |pages: &String| match pages.contains(URL) {
            true => format!("{}/{node}", pages.trim_end_matches('/')),
            false => Path::new(pages).join(node.as_str()).to_string_lossy().into_owned(),
        };
        self.folder.as_ref().map(within)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_node_has_a_place_of_its_own_in_a_folder_or_a_bucket() {
        let node = NodeId::new("node-1").expect("a good name");
        let of = |folder: &str| {
            let settings: PageSettings = toml::from_str(&format!("folder = \"{folder}\"")).expect("it is right");
            settings.below(Path::new("/project")).of(&node).expect("one was named")
        };
        assert_eq!(of("pages"), "/project/pages/node-1");
        assert_eq!(of("/var/lib/pages"), "/var/lib/pages/node-1");
        assert_eq!(of("file:///var/lib/pages"), "file:///var/lib/pages/node-1");
        assert_eq!(of("s3://bucket/some/pages/"), "s3://bucket/some/pages/node-1");
        assert_eq!(of("s3://bucket"), "s3://bucket/node-1");
        assert_eq!(PageSettings::default().below(Path::new("/project")).of(&node), None);
    }
}
