//! What policies the agent knows, and which it keeps.
//!
//! Place on the line: policy file -> **inventory** -> compile.
//! Knows nothing of: the text's syntax, devices, the plane.

use super::{Agent, Content, Effect, Exit, Policy, PolicyText};
use crate::report::{Report, Source};
use model::Revision;
use std::sync::Arc;

impl Agent {
    /// The newest valid policy, as its file says it, or as the cache would keep it.
    pub fn policy(&self) -> Option<(Revision, Arc<[u8]>)> {
        let policy = self.policy.as_ref()?;
        let text = match &policy.content {
            Content::Text(read) => read.text.clone(),
            Content::Served(compiler) => {
                let encode = self.config.encode.as_ref()?;
                encode.bytes(compiler.inventory())
            }
        };
        Some((policy.revision, text))
    }

    pub(super) fn policy_read(&mut self, read: PolicyText, effects: &mut Vec<Effect>) {
        self.policy_errors.clear();
        // Numbers go on where the last agent stopped; the same text keeps its number.
        let last = self.policy.as_ref();
        let last = last.and_then(|p| Some((p.revision, p.text()?)));
        let cached = self
            .cached
            .as_ref()
            .map(|(c, revision)| (*revision, &c.text));
        let revision = match last.or(cached) {
            Some((revision, text)) if *text == read.text => revision,
            Some((revision, _)) => Revision {
                commit: revision.commit + 1,
                ..revision
            },
            None => Revision {
                epoch: 0,
                commit: 1,
            },
        };
        let known = self.policy.as_ref().is_some_and(|p| p.revision == revision);
        if known {
            if let Some(policy) = &mut self.policy {
                policy.source = Source::File;
            }
            return;
        }
        effects.push(Effect::Report(Report::PolicyRead {
            revision,
            ports: read.inventory.ports.len(),
        }));
        self.adopt(read, revision, Source::File);
    }

    /// Keeps what is in force. At the start nothing is: then the cached policy, loudly, or nothing.
    pub(super) fn policy_invalid(&mut self, errors: Vec<String>, effects: &mut Vec<Effect>) {
        self.policy_errors.clone_from(&errors);
        let invalid = |enforced| {
            Effect::Report(Report::PolicyInvalid {
                errors: errors.clone(),
                enforced,
            })
        };
        if let Some(policy) = &self.policy {
            effects.push(invalid(Some(policy.revision)));
            return;
        }
        let cached = self.cached.as_ref().map(|(_, revision)| *revision);
        effects.push(invalid(cached));
        if !self.enforce_cached(effects) {
            self.end(Exit::NoPolicy(errors.clone()), effects);
        }
    }

    /// `false`: there is none.
    pub(super) fn enforce_cached(&mut self, effects: &mut Vec<Effect>) -> bool {
        let Some((cached, revision)) = self.cached.take() else {
            return false;
        };
        effects.push(Effect::Report(Report::EnforcingCached { revision }));
        self.adopt(cached, revision, Source::Cache);
        true
    }

    fn adopt(&mut self, mut read: PolicyText, revision: Revision, source: Source) {
        read.inventory.revision = revision;
        self.policy = Some(Policy {
            revision,
            source,
            content: Content::Text(read),
        });
        self.compiled = None;
        self.stale = true;
    }

    /// Only what is enforced and stands is worth coming back to.
    pub(super) fn save(&mut self, effects: &mut Vec<Effect>) {
        let (Some(policy), Some(enforced)) = (&self.policy, &self.enforced) else {
            return;
        };
        match (&policy.content, policy.source) {
            _ if policy.revision != enforced.revision => {}
            (Content::Text(read), Source::File) => effects.push(Effect::SaveCache {
                revision: policy.revision,
                text: read.text.clone(),
            }),
            (Content::Text(_), Source::Cache | Source::Server) => {}
            (Content::Served(_), _) => self.save_soon(effects),
        }
    }
}
