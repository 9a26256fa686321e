// SPDX-License-Identifier: GPL-2.0-only
//! The options that a kernel was built with, as far as they matter to the scheduler. Pure: what is
//! parsed is text, which `host` reads.

use serde::Serialize;

/// What an option is to the scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Need {
    /// Without it nothing can be loaded.
    Needed,
    /// Without it some locks are not followed.
    Useful,
    /// It changes what happens; neither value is wrong.
    Information,
}

impl Need {
    /// The words for reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Needed => "needed",
            Self::Useful => "useful",
            Self::Information => "only to know",
        }
    }
}

use Need::{Information, Needed, Useful};

/// Name, need, what for.
const OPTIONS: [(&str, Need, &str); 17] = [
    (
        "SCHED_CLASS_EXT",
        Needed,
        "schedulers that are BPF programs",
    ),
    ("BPF_SYSCALL", Needed, "loading BPF programs"),
    (
        "BPF_JIT",
        Needed,
        "callbacks and fentry, which are compiled",
    ),
    ("DEBUG_INFO_BTF", Needed, "reading the kernel's types"),
    (
        "BPF_EVENTS",
        Needed,
        "BPF programs on tracepoints and functions, and the agent's view of tasks",
    ),
    ("KALLSYMS", Needed, "finding functions by name"),
    (
        "KALLSYMS_ALL",
        Useful,
        "pthread: reading user memory, by variables of the kernel",
    ),
    (
        "TRACEPOINTS",
        Useful,
        "rwsem, binder and real-time waiters: lock:contention_begin and others",
    ),
    (
        "FUNCTION_TRACER",
        Useful,
        "pthread: fentry on functions of the kernel",
    ),
    (
        "DYNAMIC_FTRACE_WITH_DIRECT_CALLS",
        Useful,
        "pthread: fentry on functions of the kernel",
    ),
    ("RT_MUTEXES", Useful, "rtmutex: PI futexes"),
    ("ANDROID_BINDER_IPC", Useful, "binder"),
    ("NTSYNC", Useful, "ntsync"),
    ("KPROBE_EVENTS", Useful, "ntsync: a kprobe"),
    (
        "PREEMPT_RT",
        Information,
        "with it mutexes and rwsems are rt_mutexes",
    ),
    (
        "SCHED_PROXY_EXEC",
        Information,
        "the kernel's own proxy execution, which up to 7.3 excludes sched_ext; later it serves real-time waiters for mutexes",
    ),
    (
        "EXT_GROUP_SCHED",
        Useful,
        "cpu.weight, cpu.weight.nice, cpu.idle and cpu.max of cgroups",
    ),
];

/// One option of the kernel that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// With `CONFIG_`.
    pub name: String,
    /// `y`, `m`, `n`, or `absent`, if the configuration does not name it. None: not known.
    pub value: Option<String>,
    /// What it is to the scheduler.
    pub need: Need,
    /// What it is needed or useful for, or what it says.
    pub purpose: &'static str,
    /// What to do, if it is missing.
    pub help: Option<String>,
}

impl Setting {
    /// Whether it should be set, and is known not to be.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.help.is_some()
    }
}

/// What was found of the kernel's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Config {
    /// The file that was read.
    pub file: Option<String>,
    /// Why there is none, or what is wrong about it.
    pub why: Option<String>,
    /// The options that matter.
    pub options: Vec<Setting>,
}

/// Where a kernel's configuration may be. Loading does not need it: what the programs ask libbpf for, the
/// loader finds in the kernel's types.
#[must_use]
pub fn places(release: &str) -> [String; 4] {
    [
        format!("/boot/config-{release}"),
        "/proc/config.gz".to_owned(),
        format!("/lib/modules/{release}/config"),
        format!("/usr/lib/modules/{release}/config"),
    ]
}

impl Config {
    /// From the file that was found and its text, or why there is none.
    #[must_use]
    pub fn new(found: Result<(String, String), String>) -> Self {
        let (file, text, mut why) = match found {
            Ok((file, text)) => (Some(file), Some(text), None),
            Err(why) => (None, None, Some(why)),
        };
        let text = text.filter(|text| text.contains("CONFIG_"));
        if let Some(file) = file.as_ref().filter(|_| text.is_none()) {
            why = Some(format!("{file} names no option"));
        }
        let setting = |option| Setting::new(option, text.as_deref());
        Self {
            file,
            why,
            options: OPTIONS.into_iter().map(setting).collect(),
        }
    }

    /// The value of an option of the table, without `CONFIG_`.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&str> {
        let mut options = self.options.iter();
        let setting = options.find(|setting| setting.name.strip_prefix("CONFIG_") == Some(name));
        setting.and_then(|setting| setting.value.as_deref())
    }
}

impl Setting {
    fn new((name, need, purpose): (&str, Need, &'static str), text: Option<&str>) -> Self {
        let name = format!("CONFIG_{name}");
        let value = text.map(|text| value_in(text, &name).to_owned());
        let is_off = matches!(value.as_deref(), Some("n" | "absent"));
        let is_missing = is_off && need != Information;
        Self {
            help: is_missing.then(|| match name.as_str() {
                "CONFIG_ANDROID_BINDER_IPC" => {
                    format!("boot a kernel built with {name}, if you use binder")
                }
                "CONFIG_NTSYNC" => format!("boot a kernel built with {name}, if you use Wine"),
                _ => format!("boot a kernel built with {name}=y"),
            }),
            name,
            value,
            need,
            purpose,
        }
    }
}

/// The value of one option; of two lines about it the last one counts, as for make.
fn value_in<'a>(text: &'a str, name: &str) -> &'a str {
    let mut value = "absent";
    for line in text.lines().map(str::trim_end) {
        if let Some(("", rest)) = line.split_once(name) {
            value = rest.strip_prefix('=').unwrap_or(value);
        } else if line
            .strip_prefix("# ")
            .and_then(|rest| rest.strip_prefix(name))
            == Some(" is not set")
        {
            value = "n";
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN: &str = include_str!("../../tests/fixtures/configs/7.3.4+deb13-amd64.txt");

    fn config(text: &str) -> Config {
        Config::new(Ok(("/boot/config-7.3".to_owned(), text.to_owned())))
    }

    #[test]
    fn debians_kernel_has_all_that_is_needed() {
        let config = config(DEBIAN);
        assert!(config.options.iter().all(|option| !option.is_missing()));
        assert_eq!(config.value("SCHED_CLASS_EXT"), Some("y"));
        assert_eq!(config.value("NTSYNC"), Some("m"));
        assert_eq!(config.value("PREEMPT_RT"), Some("n"));
        assert_eq!(config.value("SCHED_PROXY_EXEC"), Some("absent"));
        assert_eq!(config.why, None);
    }

    #[test]
    fn what_is_missing_is_named_with_its_purpose_and_a_remedy() {
        let text = DEBIAN.replace(
            "CONFIG_DEBUG_INFO_BTF=y",
            "# CONFIG_DEBUG_INFO_BTF is not set",
        );
        let text = text.replace("CONFIG_KALLSYMS_ALL=y\n", "");
        let config = config(&text);
        let missing: Vec<_> = config
            .options
            .iter()
            .filter(|option| option.is_missing())
            .map(|option| (option.name.as_str(), option.value.as_deref(), option.need))
            .collect();
        let expected = [
            ("CONFIG_DEBUG_INFO_BTF", Some("n"), Needed),
            ("CONFIG_KALLSYMS_ALL", Some("absent"), Useful),
        ];
        assert_eq!(missing, expected);
        let remedy = config.options[3].help.as_deref();
        assert_eq!(
            remedy,
            Some("boot a kernel built with CONFIG_DEBUG_INFO_BTF=y")
        );
        // one name begins another
        assert_eq!(config.value("KALLSYMS"), Some("y"));
    }

    #[test]
    fn what_cannot_be_read_is_not_guessed() {
        for config in [Config::new(Err("no such file".to_owned())), config("\0\0")] {
            assert!(config.why.is_some());
            for option in &config.options {
                assert_eq!((&option.value, &option.help), (&None, &None));
            }
        }
    }
}
