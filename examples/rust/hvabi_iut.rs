// SPDX-License-Identifier: MIT
//! The side of an implementation under test (IUT) of hvabi's line protocol, version 1, in one file of std only.
//!
//! Copy it into your crate, `mod hvabi_iut;`, implement [`Iut`] and call [`serve`] from `main`. docs/protocol.md of
//! hvabi explains the protocol; my_vmm.rs shows the use.
//!
//! What this file does: lines, JSON, hex, the order of commands, checks of every argument, answers. What is left to
//! you: the ABI. Limits, each answered with `error` where a command is beyond it: a line of [`MAX_LINE`] bytes, prefix
//! and line end included, for commands and for answers; [`MAX_DEPTH`] levels of JSON (the protocol's own messages have
//! five). Memory is bounded by the line: about 60 times its size for the worst of them.
//!
//! Whatever else you print to standard output must be whole lines that do not begin with `@hvabi `.

#![allow(dead_code)] // no implementation needs all of it

use std::fmt::Write as _;
use std::io::{self, BufRead, Read, Write};

pub const PREFIX: &str = "@hvabi ";
pub const PROTOCOL: u64 = 1;
pub const MAX_LINE: usize = 1 << 20;
pub const MAX_DEPTH: usize = 16;
pub const PAGE: u64 = 4096;

// -- what you see ---------------------------------------------------------------------------------------------------

/// Why a command is not done.
#[derive(Clone, Debug)]
pub enum Refusal {
    /// Known not to be there: the runner skips.
    Unsupported(String),
    /// A wrong command, or something broke.
    Error(String),
}

pub type Done<T = ()> = Result<T, Refusal>;

pub fn unsupported<T>(message: impl Into<String>) -> Done<T> {
    Err(Refusal::Unsupported(message.into()))
}

pub fn error<T>(message: impl Into<String>) -> Done<T> {
    Err(Refusal::Error(message.into()))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Host,
    Guest,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Private,
    Shared,
    SharedReadOnly,
}

const STATES: [(&str, State); 3] =
    [("private", State::Private), ("shared", State::Shared), ("shared-read-only", State::SharedReadOnly)];

/// A range: its first byte, a multiple of 4096 but in `convert`, and its number of 4 KiB pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pages {
    pub gpa: u64,
    pub pages: u64,
    pub state: State,
}

/// Registers by name; an xmm register has up to 128 bits, every other 64.
#[derive(Clone, Debug, Default)]
pub struct Regs(pub Vec<(String, u128)>);

impl Regs {
    /// Value of a register, if it is there.
    pub fn find(&self, name: &str) -> Option<u64> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| *value as u64)
    }

    /// Value of a register of a call: one left out is 0.
    pub fn get(&self, name: &str) -> u64 {
        self.find(name).unwrap_or(0)
    }

    pub fn with(mut self, name: &str, value: u64) -> Self {
        self.0.push((name.to_string(), u128::from(value)));
        self
    }
}

pub type Memory = Vec<(u64, Vec<u8>)>;

pub struct Abi {
    pub id: &'static str,
    pub revisions: &'static [&'static str],
    pub transports: &'static [&'static str],
    pub roles: &'static [Role],
    pub profile: Option<&'static str>,
}

pub struct About {
    pub name: &'static str,
    pub version: &'static str,
    pub abis: &'static [Abi],
    pub inject: bool,
    /// Offered only to a runner that names it in its hello.
    pub exits: bool,
    /// The same.
    pub local_steps: bool,
}

pub struct Setup {
    pub abi: &'static str,
    pub revision: &'static str,
    pub transport: &'static str,
    pub role: Role,
    /// The runner takes part in `exits`, in `local-steps`.
    pub exits: bool,
    pub local_steps: bool,
    pub profile: Option<String>,
    pub enabled: bool,
    /// None: everything is memory. Each is (gpa, pages).
    pub memory: Option<Vec<(u64, u64)>>,
    pub max_ranges: Option<u64>,
    pub scratch: Option<(u64, u64)>,
    /// The ABI's own keys.
    pub config: Vec<(String, u64)>,
}

pub struct Call {
    pub vcpu: u32,
    /// 64 or 32, None where the runner does not say.
    pub mode: Option<u32>,
    pub cpl: u32,
    pub regs: Regs,
    pub mem: Memory,
}

#[derive(Clone, Debug)]
pub enum Fault {
    VmmError(u64),
    StopAfter(u64),
    EventPending(u64),
    MemoryFlip(u64, Vec<u8>),
}

/// What a call, a conversion or a resume comes to.
pub enum Reply {
    /// Host: the guest goes on.
    Return(Regs, Memory),
    /// Host: the guest executes the call again.
    Replay(Regs, Memory),
    /// Host: the guest takes an exception of that name.
    Fault(&'static str, Regs, Memory),
    /// Host: the guest ends, with the reason.
    Stop(String, Regs, Memory),
    /// Host with `exits`: asks its VMM by a call of another ABI.
    Exit(&'static str, Regs, Memory),
    /// Guest: makes a call.
    Call(Regs, Memory),
    /// Guest with `local-steps`: accepts, rescinds or maps pages.
    Step(&'static str, Vec<Pages>),
    /// Guest: has ended; whether all is converted, and what is.
    End(bool, Vec<Pages>),
    /// Guest: cannot go on, with the reason.
    Halt(String),
}

pub type Facts = Vec<(String, Vec<(u64, u64)>)>;

/// What you implement. A role that you do not offer needs none of its functions.
pub trait Iut {
    fn about(&self) -> About;
    /// A new configuration with the state of an empty reset.
    fn setup(&mut self, setup: &Setup) -> Done;
    /// `ranges` are sorted, and all that is not private. A refusal leaves the state as it was.
    fn reset(&mut self, ranges: &[Pages], facts: &Facts) -> Done;
    fn call(&mut self, _call: &Call) -> Done<Reply> {
        unsupported("there is no host here")
    }
    fn convert(&mut self, _what: Pages) -> Done<Reply> {
        unsupported("there is no guest here")
    }
    /// The other side's answer to what was yielded.
    fn resume(&mut self, _regs: &Regs, _mem: &Memory) -> Done<Reply> {
        error("nothing was yielded")
    }
    /// What is not private, merged and sorted, and the facts that are true.
    fn query(&mut self) -> Done<(Vec<Pages>, Facts)> {
        unsupported("there is no query here")
    }
    fn inject(&mut self, _fault: Fault) -> Done {
        unsupported("there is no inject here")
    }
}

// -- JSON -----------------------------------------------------------------------------------------------------------

#[derive(Clone, Debug)]
enum Json {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
}

impl Parser<'_> {
    fn peek(&self) -> u8 {
        self.text.get(self.at).copied().unwrap_or(0)
    }

    fn space(&mut self) {
        while matches!(self.peek(), b' ' | b'\t' | b'\n' | b'\r') {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        (self.peek() == byte && self.at < self.text.len()).then(|| self.at += 1)
    }

    fn value(&mut self, depth: usize) -> Option<Json> {
        self.space();
        match self.peek() {
            b'{' | b'[' if depth >= MAX_DEPTH => None,
            b'{' => self.object(depth),
            b'[' => self.list(depth),
            b'"' => Some(Json::Text(self.string()?)),
            b't' => self.word("true", Json::Bool(true)),
            b'f' => self.word("false", Json::Bool(false)),
            b'n' => self.word("null", Json::Null),
            _ => self.number(),
        }
    }

    fn word(&mut self, word: &str, value: Json) -> Option<Json> {
        self.text[self.at..].starts_with(word.as_bytes()).then(|| {
            self.at += word.len();
            value
        })
    }

    fn object(&mut self, depth: usize) -> Option<Json> {
        let mut items = Vec::new();
        self.take(b'{')?;
        self.space();
        if self.take(b'}').is_some() {
            return Some(Json::Object(items));
        }
        loop {
            self.space();
            let key = self.string()?;
            self.space();
            self.take(b':')?;
            items.push((key, self.value(depth + 1)?));
            self.space();
            if self.take(b'}').is_some() {
                return Some(Json::Object(items));
            }
            self.take(b',')?;
        }
    }

    fn list(&mut self, depth: usize) -> Option<Json> {
        let mut items = Vec::new();
        self.take(b'[')?;
        self.space();
        if self.take(b']').is_some() {
            return Some(Json::List(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            self.space();
            if self.take(b']').is_some() {
                return Some(Json::List(items));
            }
            self.take(b',')?;
        }
    }

    fn string(&mut self) -> Option<String> {
        let mut out = Vec::new();
        self.take(b'"')?;
        loop {
            let byte = *self.text.get(self.at)?;
            self.at += 1;
            match byte {
                b'"' => return Some(String::from_utf8_lossy(&out).into_owned()),
                b'\\' => self.escape(&mut out)?,
                0..=0x1f => return None,
                _ => out.push(byte),
            }
        }
    }

    fn escape(&mut self, out: &mut Vec<u8>) -> Option<()> {
        let byte = self.peek();
        self.at += 1;
        let plain = match byte {
            b'"' | b'\\' | b'/' => byte,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let digits = self.text.get(self.at..self.at + 4)?;
                if !digits.iter().all(u8::is_ascii_hexdigit) {
                    return None;
                }
                let unit = u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
                self.at += 4;
                // Half of a surrogate pair is no character; no word of the protocol has one.
                let found = char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER);
                out.extend_from_slice(found.encode_utf8(&mut [0; 4]).as_bytes());
                return Some(());
            }
            _ => return None,
        };
        out.push(plain);
        Some(())
    }

    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while self.peek().is_ascii_digit() {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }

    fn number(&mut self) -> Option<Json> {
        let start = self.at;
        let _ = self.take(b'-');
        if self.take(b'0').is_none() {
            self.digits()?;
        }
        if self.take(b'.').is_some() {
            self.digits()?;
        }
        if matches!(self.peek(), b'e' | b'E') {
            self.at += 1;
            if matches!(self.peek(), b'+' | b'-') {
                self.at += 1;
            }
            self.digits()?;
        }
        Some(Json::Number(String::from_utf8_lossy(&self.text[start..self.at]).into_owned()))
    }
}

fn parse(text: &[u8]) -> Option<Json> {
    let mut parser = Parser { text, at: 0 };
    let value = parser.value(0)?;
    parser.space();
    (parser.at == text.len()).then_some(value)
}

// -- words of the protocol ------------------------------------------------------------------------------------------

impl Json {
    /// A member of an object; the last one where it has several.
    fn get(&self, name: &str) -> Option<&Json> {
        match self {
            Json::Object(items) => items.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value),
            _ => None,
        }
    }

    fn need(&self, name: &str) -> Done<&Json> {
        match self.get(name) {
            Some(value) => Ok(value),
            None => error(format!("the argument `{name}` is missing")),
        }
    }

    fn text(&self, what: &str) -> Done<&str> {
        match self {
            Json::Text(text) => Ok(text),
            _ => error(format!("{what} is a string")),
        }
    }

    fn wide(&self, what: &str, bits: usize) -> Done<u128> {
        let digits = match self {
            Json::Text(text) => text.strip_prefix("0x"),
            _ => None,
        };
        match digits {
            Some(digits) if !digits.is_empty() && digits.bytes().all(lower_hex) => {
                let digits = digits.trim_start_matches('0');
                if digits.len() > bits / 4 {
                    return error(format!("{what} does not fit {bits} bits"));
                }
                Ok(digits.bytes().fold(0, |value, digit| value << 4 | u128::from(hex_value(digit))))
            }
            _ => error(format!("{what} is a lower-case \"0x...\" string")),
        }
    }

    fn number(&self, what: &str) -> Done<u64> {
        Ok(self.wide(what, 64)? as u64)
    }

    /// A JSON number: an integer from 0 to 2^32 - 1.
    fn small(&self, what: &str) -> Done<u32> {
        match self {
            Json::Number(text) if text.bytes().all(|digit| digit.is_ascii_digit()) => match text.parse() {
                Ok(value) => Ok(value),
                Err(_) => error(format!("{what} is at most 2^32 - 1")),
            },
            _ => error(format!("{what} is a JSON number from 0 to 2^32 - 1")),
        }
    }

    fn bytes(&self, what: &str) -> Done<Vec<u8>> {
        match self {
            Json::Text(text) if text.len() % 2 == 0 && text.bytes().all(lower_hex) => {
                Ok(text.as_bytes().chunks_exact(2).map(|pair| hex_value(pair[0]) << 4 | hex_value(pair[1])).collect())
            }
            _ => error(format!("{what} is even-length lower-case hex")),
        }
    }

    fn rows<const WIDTH: usize>(&self, what: &str) -> Done<Vec<&[Json; WIDTH]>> {
        let wrong = || Refusal::Error(format!("{what} is a list of lists of {WIDTH}"));
        let Json::List(rows) = self else { return Err(wrong()) };
        rows.iter()
            .map(|row| match row {
                Json::List(items) => std::convert::TryFrom::try_from(items.as_slice()).map_err(|_| wrong()),
                _ => Err(wrong()),
            })
            .collect()
    }

    fn object(&self, what: &str) -> Done<&[(String, Json)]> {
        match self {
            Json::Object(items) => Ok(items),
            _ => error(format!("{what} is an object")),
        }
    }

    fn state(&self) -> Done<State> {
        let word = self.text("the state")?;
        match STATES.iter().find(|(known, _)| *known == word) {
            Some((_, state)) => Ok(*state),
            None => error(format!("{} is no page state", shown(word))),
        }
    }

    fn regs(command: &Json) -> Done<Regs> {
        let Some(value) = command.get("regs") else { return Ok(Regs::default()) };
        let mut regs = Regs::default();
        for (name, value) in value.object("regs")? {
            let bits = if name.starts_with("xmm") { 128 } else { 64 };
            regs.0.push((name.clone(), value.wide(&shown(name), bits)?));
        }
        Ok(regs)
    }

    fn mem(command: &Json) -> Done<Memory> {
        let Some(value) = command.get("mem") else { return Ok(Memory::new()) };
        let mut memory = Memory::new();
        let mut next: u128 = 0;
        for [gpa, data] in value.rows::<2>("mem")? {
            let (gpa, data) = (gpa.number("gpa")?, data.bytes("mem")?);
            let end = u128::from(gpa) + data.len() as u128;
            if u128::from(gpa) < next || end > 1 << 64 {
                return error("mem is not sorted, disjoint and below 2^64");
            }
            next = end;
            memory.push((gpa, data));
        }
        Ok(memory)
    }
}

fn lower_hex(digit: u8) -> bool {
    matches!(digit, b'0'..=b'9' | b'a'..=b'f')
}

fn hex_value(digit: u8) -> u8 {
    if digit <= b'9' {
        digit - b'0'
    } else {
        digit - b'a' + 10
    }
}

/// A word of the other side's for a message: short.
fn shown(text: &str) -> String {
    text.chars().take(60).collect()
}

/// One row that must begin at page `next` or later.
fn row(gpa: &Json, pages: &Json, state: State, what: &str, next: &mut u64) -> Done<Pages> {
    let (gpa, pages) = (gpa.number("gpa")?, pages.number("pages")?);
    if gpa % PAGE != 0 || pages > (1 << 52) - gpa / PAGE {
        return error(format!("{what} does not hold whole pages below 2^64"));
    }
    if gpa / PAGE < *next {
        return error(format!("{what} is not sorted and disjoint"));
    }
    *next = gpa / PAGE + pages;
    Ok(Pages { gpa, pages, state })
}

fn page_list(value: &Json, what: &str) -> Done<Vec<(u64, u64)>> {
    let mut next = 0;
    value
        .rows::<2>(what)?
        .into_iter()
        .map(|[gpa, pages]| row(gpa, pages, State::Private, what, &mut next).map(|found| (found.gpa, found.pages)))
        .collect()
}

// -- answers --------------------------------------------------------------------------------------------------------

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for found in text.chars() {
        match found {
            '"' | '\\' => {
                out.push('\\');
                out.push(found);
            }
            '\0'..='\x1f' => {
                let _ = write!(out, "\\u{:04x}", found as u32);
            }
            _ => out.push(found),
        }
    }
    out.push('"');
    out
}

fn joined<T>(items: impl IntoIterator<Item = T>, show: impl Fn(T) -> String) -> String {
    items.into_iter().map(show).collect::<Vec<_>>().join(",")
}

fn words(items: &[&str]) -> String {
    format!("[{}]", joined(items, |word| quoted(word)))
}

fn ranges_of(ranges: &[Pages]) -> String {
    let show = |range: &Pages| {
        let word = STATES.iter().find(|(_, state)| *state == range.state).map_or("private", |(word, _)| word);
        format!("[\"{:#x}\",\"{:#x}\",\"{word}\"]", range.gpa, range.pages)
    };
    format!("[{}]", joined(ranges, show))
}

fn machine(regs: &Regs, mem: &Memory) -> String {
    let regs = joined(&regs.0, |(name, value)| format!("{}:\"{value:#x}\"", quoted(name)));
    let mem = joined(mem, |(gpa, data)| {
        let mut hex = String::with_capacity(2 * data.len());
        for byte in data {
            let _ = write!(hex, "{byte:02x}");
        }
        format!("[\"{gpa:#x}\",\"{hex}\"]")
    });
    format!("\"regs\":{{{regs}}},\"mem\":[{mem}]")
}

/// The answer's text, and whether a conversation is open now.
fn reply_of(reply: &Reply) -> (String, bool) {
    let ok = |body: String| (format!("\"ok\":{{{body}}}"), false);
    let yielded = |body: String| (format!("\"yield\":{{{body}}}"), true);
    match reply {
        Reply::Return(regs, mem) => ok(format!("\"end\":\"return\",{}", machine(regs, mem))),
        Reply::Replay(regs, mem) => ok(format!("\"end\":\"replay\",{}", machine(regs, mem))),
        Reply::Fault(name, regs, mem) => {
            ok(format!("\"end\":\"fault\",\"fault\":{},{}", quoted(name), machine(regs, mem)))
        }
        Reply::Stop(reason, regs, mem) => {
            ok(format!("\"end\":\"stop\",\"reason\":{},{}", quoted(reason), machine(regs, mem)))
        }
        Reply::Exit(abi, regs, mem) => yielded(format!("\"exit\":{{\"abi\":{},{}}}", quoted(abi), machine(regs, mem))),
        Reply::Call(regs, mem) => yielded(machine(regs, mem)),
        Reply::Step(step, ranges) => yielded(format!("\"step\":{},\"ranges\":{}", quoted(step), ranges_of(ranges))),
        Reply::End(done, ranges) => ok(format!("\"done\":{done},\"ranges\":{}", ranges_of(ranges))),
        Reply::Halt(reason) => ok(format!("\"end\":\"stop\",\"reason\":{}", quoted(reason))),
    }
}

// -- the session ----------------------------------------------------------------------------------------------------

struct Session<'a> {
    iut: &'a mut dyn Iut,
    about: About,
    role: Option<Role>,
    exits: bool,
    local_steps: bool,
    open: bool,
    stopped: bool,
}

impl Session<'_> {
    fn command(&mut self, command: &Json) -> Done<String> {
        let name = command.need("cmd")?.text("cmd")?;
        let needs = match name {
            "hello" => return self.hello(command),
            "configure" => return self.configure(command),
            "reset" => return self.reset(command),
            "resume" => return self.resume(command),
            "stop" => {
                self.stopped = true;
                return Ok("\"ok\":{}".to_string());
            }
            "call" | "query" | "inject" => Role::Host,
            "convert" => Role::Guest,
            _ => return unsupported(format!("there is no command {}", shown(name))),
        };
        if self.open {
            return error(format!("`{name}` while a conversation is open"));
        }
        if self.role != Some(needs) {
            return error(format!("`{name}` needs the role {}: configure it first", role_word(needs)));
        }
        match name {
            "call" => self.call(command),
            "query" => self.query(),
            "inject" => self.inject(command),
            _ => self.convert(command),
        }
    }

    fn hello(&mut self, command: &Json) -> Done<String> {
        let (low, high) = (command.need("min")?.small("min")?, command.need("max")?.small("max")?);
        command.need("runner")?;
        if u64::from(low) > PROTOCOL || u64::from(high) < PROTOCOL {
            return unsupported(format!("this is protocol version {PROTOCOL} only"));
        }
        let asked = |word: &str| match command.get("features") {
            Some(Json::List(items)) => items.iter().any(|item| matches!(item, Json::Text(text) if text == word)),
            _ => false,
        };
        self.exits = self.about.exits && asked("exits");
        self.local_steps = self.about.local_steps && asked("local-steps");
        let features: Vec<&str> =
            [("exits", self.exits), ("inject", self.about.inject), ("local-steps", self.local_steps)]
                .iter()
                .filter_map(|(word, there)| there.then_some(*word))
                .collect();
        let abis = joined(self.about.abis, |abi| {
            let roles: Vec<&str> = abi.roles.iter().map(|role| role_word(*role)).collect();
            let profile = abi.profile.map_or(String::new(), |word| format!(",\"profile\":{}", quoted(word)));
            format!(
                "{}:{{\"revisions\":{},\"transports\":{},\"roles\":{}{profile}}}",
                quoted(abi.id),
                words(abi.revisions),
                words(abi.transports),
                words(&roles)
            )
        });
        Ok(format!(
            "\"ok\":{{\"protocol\":{PROTOCOL},\"name\":{},\"version\":{},\"abis\":{{{abis}}},\"features\":{}}}",
            quoted(self.about.name),
            quoted(self.about.version),
            words(&features)
        ))
    }

    fn configure(&mut self, command: &Json) -> Done<String> {
        let id = command.need("abi")?.text("abi")?;
        let abis: &'static [Abi] = self.about.abis;
        let Some(abi) = abis.iter().find(|abi| abi.id == id) else {
            return unsupported(format!("there is no ABI {} here", shown(id)));
        };
        let choose = |what: &str, known: &'static [&'static str]| {
            let word = command.need(what)?.text(what)?;
            match known.iter().find(|item| **item == word) {
                Some(item) => Ok(*item),
                None => unsupported(format!("there is no {what} {} here", shown(word))),
            }
        };
        let revision = choose("revision", abi.revisions)?;
        let transport = choose("transport", abi.transports)?;
        let role = match choose("role", &["host", "guest"])? {
            "host" => Role::Host,
            _ => Role::Guest,
        };
        if !abi.roles.contains(&role) {
            return unsupported(format!("{id} has no role {} here", role_word(role)));
        }
        let mut setup = Setup {
            abi: abi.id,
            revision,
            transport,
            role,
            exits: self.exits,
            local_steps: self.local_steps,
            profile: None,
            enabled: true,
            memory: None,
            max_ranges: None,
            scratch: None,
            config: Vec::new(),
        };
        if let Some(config) = command.get("config") {
            for (key, value) in config.object("config")? {
                read_config(&mut setup, key, value)?;
            }
        }
        // From here on a failure leaves nothing configured.
        (self.role, self.open) = (None, false);
        self.iut.setup(&setup)?;
        self.role = Some(role);
        Ok("\"ok\":{}".to_string())
    }

    fn reset(&mut self, command: &Json) -> Done<String> {
        if self.role.is_none() {
            return error("`reset` before `configure`");
        }
        let mut ranges = Vec::new();
        let mut next = 0;
        if let Some(list) = command.get("ranges") {
            for [gpa, pages, state] in list.rows::<3>("ranges")? {
                let found = row(gpa, pages, state.state()?, "ranges", &mut next)?;
                if found.pages > 0 && found.state != State::Private {
                    ranges.push(found);
                }
            }
        }
        let mut facts = Facts::new();
        if let Some(found) = command.get("facts") {
            for (name, list) in found.object("facts")? {
                facts.push((name.clone(), page_list(list, &shown(name))?));
            }
        }
        self.open = false;
        self.iut.reset(&ranges, &facts)?;
        Ok("\"ok\":{}".to_string())
    }

    fn call(&mut self, command: &Json) -> Done<String> {
        let vcpu = command.need("vcpu")?.small("vcpu")?;
        let (mut mode, mut cpl) = (None, 0);
        if let Some(cpu) = command.get("cpu") {
            cpu.object("cpu")?;
            if let Some(found) = cpu.get("mode") {
                mode = match found {
                    Json::Text(word) if word == "64" => Some(64),
                    Json::Text(word) if word == "32" => Some(32),
                    _ => return error("cpu.mode is \"64\" or \"32\""),
                };
            }
            if let Some(found) = cpu.get("cpl") {
                cpl = found.small("cpl")?;
            }
        }
        if cpl > 3 {
            return error("cpl is 0 to 3");
        }
        let call = Call { vcpu, mode, cpl, regs: Json::regs(command)?, mem: Json::mem(command)? };
        let reply = self.iut.call(&call)?;
        Ok(self.said(&reply))
    }

    fn convert(&mut self, command: &Json) -> Done<String> {
        let what = Pages {
            gpa: command.need("gpa")?.number("gpa")?,
            pages: command.need("pages")?.number("pages")?,
            state: command.need("to")?.state()?,
        };
        let reply = self.iut.convert(what)?;
        Ok(self.said(&reply))
    }

    fn resume(&mut self, command: &Json) -> Done<String> {
        if !self.open {
            return error("`resume` without a conversation");
        }
        let (regs, mem) = (Json::regs(command)?, Json::mem(command)?);
        let reply = self.iut.resume(&regs, &mem)?;
        Ok(self.said(&reply))
    }

    fn said(&mut self, reply: &Reply) -> String {
        let (text, open) = reply_of(reply);
        self.open = open;
        text
    }

    fn query(&mut self) -> Done<String> {
        let (ranges, facts) = self.iut.query()?;
        let shown = facts.iter().filter(|(_, list)| !list.is_empty());
        let facts = joined(shown, |(name, list)| {
            let list = joined(list, |(gpa, pages)| format!("[\"{gpa:#x}\",\"{pages:#x}\"]"));
            format!("{}:[{list}]", quoted(name))
        });
        Ok(format!("\"ok\":{{\"ranges\":{},\"facts\":{{{facts}}}}}", ranges_of(&ranges)))
    }

    fn inject(&mut self, command: &Json) -> Done<String> {
        let number = |what: &str| command.need(what)?.number(what);
        let fault = match command.need("fault")?.text("fault")? {
            "vmm-error" => Fault::VmmError(number("errno")?),
            "stop-after" => Fault::StopAfter(number("pages")?),
            "event-pending" => match number("after")? {
                0 => return error("after is 1 or more"),
                after => Fault::EventPending(after),
            },
            "memory-flip" => Fault::MemoryFlip(number("gpa")?, command.need("hex")?.bytes("hex")?),
            other => return unsupported(format!("there is no fault {}", shown(other))),
        };
        self.iut.inject(fault)?;
        Ok("\"ok\":{}".to_string())
    }

    /// The answer to a prefixed line; None stands for one that was too long.
    fn answer(&mut self, line: Option<&[u8]>) -> String {
        let parsed = line.and_then(|line| parse(&line[PREFIX.len()..]));
        let mut id = "null";
        let found = match (&line, &parsed) {
            (None, _) => error(format!("a line is longer than {MAX_LINE} bytes")),
            (_, Some(command @ Json::Object(_))) => match command.get("id") {
                Some(Json::Number(text)) if is_id(text) => {
                    id = text;
                    self.command(command)
                }
                _ => error("`id` is a JSON number"),
            },
            _ => error(format!("the line holds no JSON object, or more than {MAX_DEPTH} levels of it")),
        };
        let whole = |body: &str| format!("{PREFIX}{{\"id\":{id},{body}}}\n");
        let refused = |refusal: &Refusal| {
            let (word, message) = match refusal {
                Refusal::Unsupported(message) => ("unsupported", message),
                Refusal::Error(message) => ("error", message),
            };
            whole(&format!("\"{word}\":{{\"message\":{}}}", quoted(message)))
        };
        match found.as_ref().map(|body| whole(body)) {
            Ok(text) if text.len() <= MAX_LINE => text,
            Ok(_) => {
                self.open = false;
                refused(&Refusal::Error("the answer does not fit a line".to_string()))
            }
            Err(refusal) => refused(refusal),
        }
    }
}

/// An integer of at most 20 characters.
fn is_id(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    text.len() <= 20 && digits.bytes().all(|digit| digit.is_ascii_digit())
}

fn role_word(role: Role) -> &'static str {
    match role {
        Role::Host => "host",
        Role::Guest => "guest",
    }
}

fn read_config(setup: &mut Setup, key: &str, value: &Json) -> Done {
    match key {
        "memory" => setup.memory = Some(page_list(value, key)?),
        "profile" => setup.profile = Some(value.text(key)?.to_string()),
        "enabled" => match value {
            Json::Bool(found) => setup.enabled = *found,
            _ => return error("enabled is true or false"),
        },
        "max_ranges" => setup.max_ranges = Some(value.number(key)?),
        "scratch" => match value {
            Json::List(items) if items.len() == 2 => {
                let found = row(&items[0], &items[1], State::Private, key, &mut 0)?;
                setup.scratch = Some((found.gpa, found.pages));
            }
            _ => return error("scratch is [gpa, pages]"),
        },
        _ => setup.config.push((key.to_string(), value.number(&shown(key))?)),
    }
    Ok(())
}

/// Reads one line with its end, at most one byte more than a line may have; the rest of a longer one is dropped.
fn read_line(source: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<()> {
    line.clear();
    source.by_ref().take(MAX_LINE as u64 + 1).read_until(b'\n', line)?;
    if line.len() <= MAX_LINE {
        return Ok(());
    }
    let mut ended = line.ends_with(b"\n");
    while !ended {
        let buffer = source.fill_buf()?;
        let used = buffer.iter().position(|byte| *byte == b'\n').map_or(buffer.len(), |at| at + 1);
        ended = buffer.is_empty() || buffer[used - 1] == b'\n';
        source.consume(used);
    }
    Ok(())
}

/// Serves until `stop` or the end of input.
pub fn serve(iut: &mut dyn Iut, mut source: impl BufRead, mut sink: impl Write) -> io::Result<()> {
    let about = iut.about();
    let mut session = Session { iut, about, role: None, exits: false, local_steps: false, open: false, stopped: false };
    let mut line = Vec::new();
    while !session.stopped {
        read_line(&mut source, &mut line)?;
        if line.is_empty() {
            break;
        }
        if !line.starts_with(PREFIX.as_bytes()) {
            continue;
        }
        let fits = line.len() <= MAX_LINE;
        let text = line.trim_ascii_end();
        // The prefix ends with a space of its own.
        let text = if text.len() < PREFIX.len() { PREFIX.as_bytes() } else { text };
        let answer = session.answer(fits.then_some(text));
        sink.write_all(answer.as_bytes())?;
        sink.flush()?;
    }
    Ok(())
}
