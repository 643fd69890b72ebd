//! Remembers which tool a call was of, until its result comes.

use std::collections::VecDeque;

/// Calls that are remembered; the oldest is forgotten for one more.
const CALLS: usize = 1024;
/// Bytes of an id or a name; a longer one is not remembered.
const LENGTH: usize = 1024;

/// Names of tools by the ids of their calls. Bounded.
#[derive(Debug, Default)]
pub struct ToolNames(VecDeque<(String, String)>);

impl ToolNames {
    /// A call with this id is of this tool.
    pub fn remember(&mut self, id: &str, name: &str) {
        if id.len() > LENGTH || name.len() > LENGTH {
            return;
        }
        self.take(id);
        if self.0.len() == CALLS {
            self.0.pop_front();
        }
        self.0.push_back((id.to_owned(), name.to_owned()));
    }

    /// The tool of the call, which is forgotten: it has one result.
    pub fn take(&mut self, id: &str) -> Option<String> {
        let at = self.0.iter().position(|(known, _)| known == id)?;
        self.0.remove(at).map(|(_, name)| name)
    }

    /// Whether a call with this id goes on.
    pub fn has(&self, id: &str) -> bool {
        self.0.iter().any(|(known, _)| known == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_known_until_its_result() {
        let mut names = ToolNames::default();
        names.remember("1", "ls");
        names.remember("1", "cat");
        assert!(names.has("1") && !names.has("2"));
        assert_eq!(names.take("1").as_deref(), Some("cat"));
        assert_eq!(names.take("1"), None);
    }

    #[test]
    fn calls_without_results_are_forgotten_in_time() {
        let mut names = ToolNames::default();
        for id in 0..=CALLS {
            names.remember(&id.to_string(), "ls");
        }
        names.remember(&"x".repeat(LENGTH + 1), "ls");
        assert_eq!(names.0.len(), CALLS);
        assert!(!names.has("0") && names.has("1"));
    }
}
