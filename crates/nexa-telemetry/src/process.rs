//! What the system says of this process. Where it does not say so, the figure is absent.

use std::fs;

/// Files, sockets and the like that are open.
pub(crate) fn open_files() -> Option<usize> {
    // The folder that is read is one of them.
    fs::read_dir("/proc/self/fd").ok().map(|open| open.count().saturating_sub(1))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_open_files() {
        let open = open_files().unwrap();
        let _one_more = fs::File::open("/proc/self/status").unwrap();
        assert!(open_files().unwrap() > 0 && open > 0);
    }
}
