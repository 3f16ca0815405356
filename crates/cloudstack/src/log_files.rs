//! The script's files, one line for each VM, and the line that the agent asks back.
//!
//! ```text
//! i-2-10-VM,10,10.1.1.10,3,9a0364b9e99bb480dd25e1f0284c8555,7     name, id, address, domain, signature, sequence
//! i-2-13-VM,13,10.1.1.13,5,_initial_,-1                           no rules yet
//! r-4-VM,-1,_ignore_,4,_initial_,-1                               a system VM
//! ```
//! The server reads id and sequence, and pushes anew where the sequence isn't its own.
//! Knows nothing of: where the files are (`files` does).

use crate::state::INITIAL;
use crate::words::quoted;
use crate::{Push, Signature, State, Vm, VmKind, VmName};
use std::fmt;
use std::net::Ipv4Addr;

/// What one line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Whose it is.
    pub vm: VmName,
    /// What it says of it.
    pub kind: LogKind,
    /// libvirt's number of the domain; `None` where the script knew none.
    pub domain: Option<u32>,
}

/// A VM's kind, as a line tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogKind {
    /// A tenant's.
    User {
        /// CloudStack's number of it.
        id: u64,
        /// Primary address.
        address: Option<Ipv4Addr>,
        /// Signature and sequence of its rules; `None`: no rules yet.
        push: Option<(Signature, u64)>,
    },
    /// CloudStack's own.
    System,
}

/// A line that is none; quoted, with what is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{line} is no line of a VM: {what}")]
pub struct LogError {
    line: String,
    what: &'static str,
}

const IGNORED: &str = "_ignore_";
const NONE: &str = "-1";

/// Provisional rules are none to the server: it pushes its own.
fn told(push: Option<&Push>) -> Option<(Signature, u64)> {
    let push = push.filter(|push| !push.is_provisional())?;
    Some((push.signature.clone(), push.sequence))
}

impl LogLine {
    /// What is to be said of a VM.
    pub fn of(name: &VmName, vm: &Vm) -> Self {
        let kind = match &vm.kind {
            VmKind::System => LogKind::System,
            VmKind::User(user) => LogKind::User {
                id: user.id,
                address: user.address,
                push: told(user.push.as_ref()),
            },
        };
        Self {
            vm: name.clone(),
            kind,
            domain: vm.domain,
        }
    }

    /// Reads a line, with or without its end.
    pub fn parse(line: &str) -> Result<Self, LogError> {
        let line = line.trim_end();
        let bad = |what| LogError {
            line: quoted(line),
            what,
        };
        let fields: Vec<&str> = line.split(',').collect();
        let Ok([vm, id, address, domain, signature, sequence]) = <[&str; 6]>::try_from(fields)
        else {
            return Err(bad("it hasn't six fields"));
        };
        let domain = match domain {
            // Python's word for nothing.
            "None" | NONE => None,
            _ => Some(domain.parse().map_err(|_| bad("its domain is no number"))?),
        };
        let kind = if (id, address) == (NONE, IGNORED) {
            LogKind::System
        } else {
            let address = match address {
                "" => None,
                _ => Some(address.parse().map_err(|_| bad("its address is none"))?),
            };
            let push = match (signature, sequence) {
                (INITIAL, NONE) => None,
                _ => Some((
                    Signature::new(signature).map_err(|_| bad("its signature is none"))?,
                    sequence
                        .parse()
                        .map_err(|_| bad("its sequence is no number"))?,
                )),
            };
            LogKind::User {
                id: id.parse().map_err(|_| bad("its id is no number"))?,
                address,
                push,
            }
        };
        Ok(Self {
            vm: VmName::new(vm).map_err(|_| bad("its name is none"))?,
            kind,
            domain,
        })
    }

    /// Primary address of a tenant's VM.
    pub(crate) fn address(&self) -> Option<Ipv4Addr> {
        match &self.kind {
            LogKind::User { address, .. } => *address,
            LogKind::System => None,
        }
    }

    /// Refuses a line that is in another VM's file.
    pub(crate) fn named(self, vm: &VmName) -> Result<Self, LogError> {
        match self.vm == *vm {
            true => Ok(self),
            false => Err(LogError {
                line: quoted(&self.to_string()),
                what: "it is in the file of another",
            }),
        }
    }

    /// The same of a VM whose rules aren't in force: the server will push them anew.
    pub fn without_rules(mut self) -> Self {
        match &mut self.kind {
            LogKind::User { push, .. } => *push = None,
            LogKind::System => {}
        }
        self
    }
}

/// The line without its end.
impl fmt::Display for LogLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},", self.vm)?;
        match &self.kind {
            LogKind::System => write!(f, "{NONE},{IGNORED},")?,
            LogKind::User { id, address, .. } => {
                write!(f, "{id},")?;
                if let Some(address) = address {
                    write!(f, "{address}")?;
                }
                f.write_str(",")?;
            }
        }
        match self.domain {
            Some(domain) => write!(f, "{domain},")?,
            None => write!(f, "{NONE},")?,
        }
        match &self.kind {
            LogKind::User {
                push: Some((signature, sequence)),
                ..
            } => write!(f, "{signature},{sequence}"),
            LogKind::User { push: None, .. } | LogKind::System => write!(f, "{INITIAL},{NONE}"),
        }
    }
}

/// The answer to `get_rule_logs_for_vms`: the lines of the tenants' VMs that run, joined by `;`.
///
/// `running` are domains' names as libvirt lists them. `in_force` says whether a VM's rules are what the
/// host enforces; where they aren't, the line says that none have come yet.
pub fn answer<'a>(
    state: &State,
    running: impl IntoIterator<Item = &'a str>,
    in_force: impl Fn(&VmName) -> bool,
) -> String {
    let line = |name: &str| {
        let (name, vm) = state.vms.get_key_value(name)?;
        let line = name.is_instance().then(|| LogLine::of(name, vm))?;
        let line = match in_force(name) {
            true => line,
            false => line.without_rules(),
        };
        Some(line.to_string())
    };
    let lines: Vec<String> = running.into_iter().filter_map(line).collect();
    lines.join(";")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, domain: Option<u32>, kind: LogKind) {
        let vm = line.split(',').next().and_then(|n| VmName::new(n).ok());
        let expected = LogLine {
            vm: vm.expect("a name"),
            kind,
            domain,
        };
        assert_eq!(LogLine::parse(line), Ok(expected.clone()), "{line}");
        assert_eq!(LogLine::parse(&format!("{line}\n")), Ok(expected));
    }

    fn user(id: u64, address: Option<[u8; 4]>, push: Option<(&str, u64)>) -> LogKind {
        LogKind::User {
            id,
            address: address.map(Ipv4Addr::from),
            push: push.map(|(s, n)| (Signature::new(s).expect("a signature"), n)),
        }
    }

    const PUSHED: &str = "i-2-10-VM,10,10.1.1.10,3,9a03,7";
    const NEW: &str = "i-2-13-VM,13,10.1.1.13,5,_initial_,-1";
    const NO_ADDRESS: &str = "i-2-14-VM,14,,-1,9a03,1";
    const SYSTEM: &str = "r-4-VM,-1,_ignore_,4,_initial_,-1";

    #[test]
    fn lines_are_read() {
        let address = Some([10, 1, 1, 10]);
        check(PUSHED, Some(3), user(10, address, Some(("9a03", 7))));
        check(NEW, Some(5), user(13, Some([10, 1, 1, 13]), None));
        check(NO_ADDRESS, None, user(14, None, Some(("9a03", 1))));
        check(SYSTEM, Some(4), LogKind::System);
        check(
            "v-9-VM,-1,_ignore_,None,_initial_,-1",
            None,
            LogKind::System,
        );
    }

    #[test]
    fn lines_are_written_as_they_are_read() {
        for line in [PUSHED, NEW, NO_ADDRESS, SYSTEM] {
            let read = LogLine::parse(line).expect(line);
            assert_eq!(read.to_string(), line);
        }
    }

    #[test]
    fn what_is_no_line_is_an_error() {
        for (line, what) in [
            ("", "it hasn't six fields"),
            ("i-2-10-VM,10,10.1.1.10,3,9a03", "it hasn't six fields"),
            ("i-2-10-VM,10,10.1.1.10,3,9a03,7,", "it hasn't six fields"),
            ("../x,10,10.1.1.10,3,9a03,7", "its name is none"),
            ("i-2-10-VM,x,10.1.1.10,3,9a03,7", "its id is no number"),
            ("i-2-10-VM,10,x,3,9a03,7", "its address is none"),
            ("i-2-10-VM,10,10.1.1.10,x,9a03,7", "its domain is no number"),
            ("i-2-10-VM,10,10.1.1.10,3,9;a,7", "its signature is none"),
            (
                "i-2-10-VM,10,10.1.1.10,3,9a03,-1",
                "its sequence is no number",
            ),
        ] {
            let error = LogLine::parse(line).expect_err(line);
            let expected = format!("{} is no line of a VM: {what}", quoted(line));
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn the_server_is_told_of_no_provisional_rules() {
        let mut state = State::from_json(r#"{"version":1,"vms":[
            {"name":"i-2-13-VM","domain":5,"user":{"id":13,"address":"10.1.1.13","push":null},"nics":[]}]}"#).expect("good");
        let vm = state.vms.values_mut().next().expect("one");
        let VmKind::User(user) = &mut vm.kind else {
            panic!("a tenant's");
        };
        user.push = Some(Push::provisional(Default::default()));
        assert_eq!(answer(&state, ["i-2-13-VM"], |_| true), NEW);
        let again = State::from_json(&state.to_json()).expect("ours");
        assert_eq!(again, state);
    }

    #[test]
    fn the_answer_is_about_the_tenants_vms_that_run() {
        let state = State::from_json(r#"{"version":1,"vms":[
            {"name":"i-2-10-VM","domain":3,"user":{"id":10,"address":"10.1.1.10","push":{"signature":"9a03","sequence":7,"rules":""}},"nics":[]},
            {"name":"i-2-11-VM","domain":6,"user":{"id":11,"address":"10.1.1.11","push":{"signature":"9a04","sequence":8,"rules":""}},"nics":[]},
            {"name":"i-2-13-VM","domain":5,"user":{"id":13,"address":"10.1.1.13","push":null},"nics":[]},
            {"name":"r-4-VM","domain":4,"user":null,"nics":[]}]}"#).expect("good");
        let running = ["r-4-VM", "i-2-13-VM", "i-2-10-VM", "i-2-99-VM", "../x"];
        let seen = answer(&state, running, |_| true);
        assert_eq!(seen, format!("{NEW};{PUSHED}"));
        let seen = answer(&state, running, |name| name.as_str() != "i-2-10-VM");
        assert_eq!(seen, format!("{NEW};i-2-10-VM,10,10.1.1.10,3,_initial_,-1"));
        assert_eq!(answer(&state, [], |_| true), "");
    }
}
