//! A scenario file to scenarios.

use super::{Action, Change, Outcome, Scenario, Step, Why, here};
use model::{
    Direction, DropReason, Elision, Family, GroupId, Inventory, Narrowing, PortId, RuleId, RuleRef,
};
use saphyr::{LoadableYamlNode, MarkedYaml};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use wire::words::Words;

/// What is wrong with a scenario file, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadScenario {
    pub file: String,
    /// From 1; 0 when it is about the whole file.
    pub line: usize,
    pub what: String,
}

impl fmt::Display for BadScenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.what)
    }
}

impl std::error::Error for BadScenario {}

/// A line, and what is wrong there.
type Bad = (usize, String);

/// The scenarios of every `.yaml` file of a directory, in the order of their names.
pub fn load(directory: &Path) -> Result<Vec<Scenario>, BadScenario> {
    let bad = |file: &Path, error: std::io::Error| BadScenario {
        file: file.display().to_string(),
        line: 0,
        what: error.to_string(),
    };
    let entries = std::fs::read_dir(directory).map_err(|error| bad(directory, error))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| bad(directory, error))?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            files.push(path);
        }
    }
    files.sort();
    let mut scenarios = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).map_err(|error| bad(&file, error))?;
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        scenarios.extend(parse(&text, &name)?);
    }
    Ok(scenarios)
}

pub fn parse(text: &str, file: &str) -> Result<Vec<Scenario>, BadScenario> {
    file_of(text, file).map_err(|(line, what)| BadScenario {
        file: file.to_owned(),
        line,
        what,
    })
}

fn file_of(text: &str, file: &str) -> Result<Vec<Scenario>, Bad> {
    let documents = MarkedYaml::load_from_str(text)
        .map_err(|error| (error.marker().line(), error.info().to_owned()))?;
    let [document] = documents.as_slice() else {
        return Err((1, "a scenario file is one YAML document".to_owned()));
    };
    let top = fields(document, &["base", "policies", "scenarios"])?;
    let base = match top.get("base") {
        Some(base) => string(base)?,
        None => "",
    };
    let mut policies = BTreeMap::new();
    for (name, policy) in entries(required(document, &top, "policies")?)? {
        policies.insert(name.to_owned(), inventory(base, policy)?);
    }
    let policies = Arc::new(policies);
    let file: Arc<str> = file.into();
    let list = required(document, &top, "scenarios")?;
    let items = list
        .data
        .as_sequence()
        .ok_or_else(|| (line(list), "`scenarios` is a list".to_owned()))?;
    let mut scenarios: Vec<Scenario> = Vec::new();
    for item in items {
        let scenario = scenario(item, &file, &policies)?;
        if scenarios.iter().any(|other| other.name == scenario.name) {
            return Err((line(item), format!("two scenarios: {}", scenario.name)));
        }
        scenarios.push(scenario);
    }
    Ok(scenarios)
}

fn inventory(base: &str, policy: &MarkedYaml<'_>) -> Result<Inventory, Bad> {
    let text = format!("{base}\n{}", string(policy)?);
    match policyfile::parse(&text, "policy", &here()) {
        Ok(file) => Ok(file.inventory),
        Err(errors) => Err((line(policy), format!("{errors}"))),
    }
}

fn scenario(
    item: &MarkedYaml<'_>,
    file: &Arc<str>,
    policies: &Arc<BTreeMap<String, Inventory>>,
) -> Result<Scenario, Bad> {
    let known = fields(item, &["name", "says", "threat", "begin", "steps"])?;
    let begin = match known.get("begin") {
        Some(begin) => string(begin)?,
        None => "main",
    };
    if !policies.contains_key(begin) {
        return Err((line(item), format!("no policy `{begin}` in the file")));
    }
    let steps_node = required(item, &known, "steps")?;
    let steps_text = string(steps_node)?;
    let mut steps = Vec::new();
    let lines = || steps_text.lines();
    let blank = lines().take_while(|text| text.trim().is_empty()).count();
    for (i, text) in lines().enumerate() {
        // A block is where its first words are, not at its mark.
        let at = (line(steps_node) + i).saturating_sub(blank);
        let text = text.split(" #").next().unwrap_or_default().trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let action = action(text).map_err(|what| (at, format!("{text}: {what}")))?;
        if let Action::Change(Change::Policy(name)) = &action
            && !policies.contains_key(name)
        {
            return Err((at, format!("no policy `{name}` in the file")));
        }
        steps.push(Step {
            line: at,
            text: text.to_owned(),
            action,
        });
    }
    let threat = known
        .get("threat")
        .map(|threat| string(threat))
        .transpose()?;
    Ok(Scenario {
        file: file.clone(),
        name: string(required(item, &known, "name")?)?.to_owned(),
        says: string(required(item, &known, "says")?)?.to_owned(),
        threat: threat.map(str::to_owned),
        policies: policies.clone(),
        begin: begin.to_owned(),
        steps,
    })
}

fn action(text: &str) -> Result<Action, String> {
    let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
    let words: Vec<&str> = rest.split_whitespace().collect();
    let change = match (verb, words.as_slice()) {
        ("from" | "to", _) => return packet(text, 1),
        ("repeat", _) => {
            let (count, text) = rest.split_once(' ').unwrap_or((rest, ""));
            let count = count.parse().map_err(|_| "`repeat` needs a number")?;
            return packet(text, count);
        }
        ("wait", [time]) => return Ok(Action::Wait(duration(time)?)),
        ("migrate", [port]) => return Ok(Action::Migrate(PortId::from(*port))),
        ("policy", [name]) => Change::Policy((*name).to_owned()),
        ("join", [port, group]) => Change::Join(PortId::from(*port), GroupId::from(*group)),
        ("leave", [port, group]) => Change::Leave(PortId::from(*port), GroupId::from(*group)),
        ("remove", [rule]) => Change::RemoveRule(rule_ref(rule)?),
        ("forget", [group]) => Change::Forget(GroupId::from(*group)),
        ("unplug", [port]) => Change::Unplug(PortId::from(*port)),
        ("family", [rule, "ipv4"]) => Change::Family(rule_ref(rule)?, Family::V4),
        ("family", [rule, "ipv6"]) => Change::Family(rule_ref(rule)?, Family::V6),
        ("set", ["elision", "on"]) => Change::Elision(Elision::On),
        ("set", ["elision", "strict"]) => Change::Elision(Elision::Strict),
        ("set", ["elision", "off"]) => Change::Elision(Elision::Off),
        ("set", ["narrowing", "cut"]) => Change::Narrowing(Narrowing::Cut),
        ("set", ["narrowing", "keep"]) => Change::Narrowing(Narrowing::Keep),
        _ => return Err("no such step".to_owned()),
    };
    Ok(Action::Change(change))
}

fn packet(text: &str, count: usize) -> Result<Action, String> {
    let form = "a packet step reads `from PORT: PACKET => OUTCOME` (or `to`)";
    let (said, outcome) = text.rsplit_once("=>").ok_or(form)?;
    let (head, words) = said.split_once(": ").ok_or(form)?;
    let (way, port) = head.split_once(' ').ok_or(form)?;
    let direction = match way {
        "from" => Direction::Egress,
        "to" => Direction::Ingress,
        _ => return Err(form.to_owned()),
    };
    let packets = (0..count).map(|n| words.replace("{n}", &n.to_string()).parse::<Words>());
    let packets: Result<Vec<Words>, _> = packets.collect();
    Ok(Action::Packet {
        port: PortId::from(port.trim()),
        direction,
        packets: packets.map_err(|error| error.to_string())?,
        outcome: outcome_of(outcome)?,
    })
}

fn outcome_of(text: &str) -> Result<Outcome, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let why = match words.as_slice() {
        ["pass"] => return Ok(Outcome::Pass(None)),
        ["drop"] => return Ok(Outcome::Drop(None)),
        ["drop", name] => {
            let reason = DropReason::ALL.iter().find(|reason| reason.name() == *name);
            let reason = reason.ok_or_else(|| format!("no drop reason `{name}`"))?;
            return Ok(Outcome::Drop(Some(*reason)));
        }
        ["pass", "rule"] => Why::Rule(None),
        ["pass", "rule", rule] => Why::Rule(Some(rule_ref(rule)?)),
        ["pass", "live"] => Why::Live(None),
        ["pass", "live", rule] => Why::Live(Some(rule_ref(rule)?)),
        ["pass", "elided-error"] => Why::ElidedError,
        ["pass", "fragment"] => Why::Fragment,
        ["pass", "infrastructure"] => Why::Infrastructure,
        ["pass", "unguarded"] => Why::Unguarded,
        _ => return Err(format!("no such outcome: {}", text.trim())),
    };
    Ok(Outcome::Pass(Some(why)))
}

fn rule_ref(text: &str) -> Result<RuleRef, String> {
    let (group, rule) = text.split_once('/').ok_or("a rule is named GROUP/RULE")?;
    Ok(RuleRef {
        group: GroupId::from(group),
        rule: RuleId::from(rule),
    })
}

fn duration(text: &str) -> Result<Duration, String> {
    let number = |digits: &str| digits.parse::<u64>().ok();
    let time = match text.strip_suffix("ms") {
        Some(digits) => number(digits).map(Duration::from_millis),
        None => text
            .strip_suffix('s')
            .and_then(number)
            .map(Duration::from_secs),
    };
    time.ok_or_else(|| "a time is written 31s or 500ms".to_owned())
}

fn line(node: &MarkedYaml<'_>) -> usize {
    node.span.start.line()
}

fn string<'a>(node: &'a MarkedYaml<'_>) -> Result<&'a str, Bad> {
    let text = node.data.as_str();
    text.ok_or_else(|| (line(node), "text is expected here".to_owned()))
}

fn entries<'a, 'y>(node: &'a MarkedYaml<'y>) -> Result<Vec<(&'a str, &'a MarkedYaml<'y>)>, Bad> {
    let Some(mapping) = node.data.as_mapping() else {
        return Err((line(node), "a mapping is expected here".to_owned()));
    };
    let pairs = mapping.iter().map(|(key, value)| Ok((string(key)?, value)));
    pairs.collect()
}

fn fields<'a, 'y>(
    node: &'a MarkedYaml<'y>,
    known: &[&str],
) -> Result<BTreeMap<&'a str, &'a MarkedYaml<'y>>, Bad> {
    let entries = entries(node)?;
    if let Some((name, value)) = entries.iter().find(|(name, _)| !known.contains(name)) {
        let what = format!("unknown field `{name}`; known are {}", known.join(", "));
        return Err((line(value), what));
    }
    Ok(entries.into_iter().collect())
}

fn required<'a, 'y>(
    node: &MarkedYaml<'y>,
    fields: &BTreeMap<&'a str, &'a MarkedYaml<'y>>,
    name: &str,
) -> Result<&'a MarkedYaml<'y>, Bad> {
    let field = fields.get(name).copied();
    field.ok_or_else(|| (line(node), format!("`{name}` is missing")))
}
