//! Solve: the closure of packages over Pre-Depends and Depends, chosen the same way everywhere.
//!
//! Layer 2 (judgement): pure. There is one candidate per name, so nothing is searched: what cannot be
//! installed is ruled out first, then each relation takes its first alternative that is left, relations
//! without a choice before those with one. Must never depend on the order in which indexes are read.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::index::{Package, Universe};
use super::relation::{self, Alternatives, Relation};
use crate::text::nearest;

/// What every image gets beside what the author names, since a closure need not contain it (that of
/// `python3.11` has no shell): changing this changes what new locks hold.
///
/// - `base-files`: the top-level folders, `/etc/os-release`, `/usr/share/base-files`.
/// - `base-passwd`: the master files of `/etc/passwd` and `/etc/group`.
/// - `ca-certificates`: the certificates a bundle is made of.
/// - `coreutils`: `env`, `cat`, `mkdir` and the like, which every entry script takes for granted.
/// - `dash`: `/bin/sh`.
/// - `libc-bin`: `ldconfig`, `getent`, `nsswitch.conf`; brings the C library.
pub const MINIMAL: [&str; 6] = ["base-files", "base-passwd", "ca-certificates", "coreutils", "dash", "libc-bin"];

/// One thing that stands in the way; shown as a sentence.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Problem {
    /// Nobody has heard of it.
    #[error("there is no package `{name}`{}", near.as_ref().map(|near| format!(", did you mean `{near}`?")).unwrap_or_default())]
    Unknown {
        /// As the author wrote it.
        name: String,
        /// The nearest name that exists.
        near: Option<String>,
    },
    /// A virtual package was asked for that several provide.
    #[error("`{name}` is provided by {}: name one of them", providers.join(", "))]
    Choice {
        /// As the author wrote it.
        name: String,
        /// Package names.
        providers: Vec<String>,
    },
    /// A relation that nothing answers.
    #[error("`{package}` wants {wanted}, {found}")]
    Unmet {
        /// Who wants it.
        package: String,
        /// The alternatives.
        wanted: String,
        /// What there is instead.
        found: String,
    },
    /// Two packages that cannot lie side by side.
    #[error("`{package}` conflicts with `{other}` ({relation})")]
    Conflict {
        /// Who says so.
        package: String,
        /// With whom.
        other: String,
        /// What it says.
        relation: String,
    },
    /// A field of a package that cannot be read.
    #[error("package `{package}`: {problem}")]
    Relation {
        /// Whose.
        package: String,
        /// What is wrong.
        problem: String,
    },
}

/// Everything a set of packages needs, or everything that stands in the way, sorted.
pub fn solve<'u>(universe: &'u Universe, wanted: &[&str]) -> Result<Vec<&'u Package>, Vec<Problem>> {
    let mut problems = BTreeSet::new();
    let mut roots = BTreeSet::new();
    for name in wanted {
        match root(universe, name) {
            Ok(package) => drop(roots.insert(package.name.as_str())),
            Err(problem) => drop(problems.insert(problem)),
        }
    }
    let graph = Graph::reach(universe, &roots, &mut problems);
    for root in &roots {
        graph.explain(root, &mut BTreeSet::new(), &mut problems);
    }
    if !problems.is_empty() {
        return Err(problems.into_iter().collect());
    }
    graph.choose(&roots).map_err(|problems| problems.into_iter().collect())
}

/// The package that a name of the author's means.
fn root<'u>(universe: &'u Universe, name: &str) -> Result<&'u Package, Problem> {
    if let Some(package) = universe.get(name) {
        return Ok(package);
    }
    match universe.providers(name) {
        [] => Err(Problem::Unknown { name: name.to_owned(), near: nearest(name, universe.names()).map(str::to_owned) }),
        [(only, _)] => Ok(universe.get(only).expect("providers are candidates")),
        many => Err(Problem::Choice { name: name.to_owned(), providers: many.iter().map(|(name, _)| name.clone()).collect() }),
    }
}

/// A package with its relations read.
struct Node<'u> {
    package: &'u Package,
    depends: Vec<Alternatives>,
    conflicts: Vec<Relation>,
    provides: Vec<Relation>,
}

impl Node<'_> {
    /// Whether this package is what a relation asks for, by its own name or by what it provides.
    fn answers(&self, relation: &Relation) -> bool {
        (relation.name == self.package.name.as_str() && relation.admits(&self.package.version))
            || self.provides.iter().any(|provided| {
                let version = provided.version.as_ref().map(|(_, version)| version);
                provided.name == relation.name && relation.admits_provided(version)
            })
    }

    /// The relation by which this package cannot lie beside another.
    fn forbids(&self, other: &Node) -> Option<&Relation> {
        let same = self.package.name == other.package.name;
        self.conflicts.iter().find(|relation| !same && other.answers(relation))
    }
}

/// All packages that any choice could bring, and which of them can be installed at all.
struct Graph<'u> {
    universe: &'u Universe,
    nodes: BTreeMap<&'u str, Node<'u>>,
    ruled_out: BTreeSet<&'u str>,
}

impl<'u> Graph<'u> {
    fn reach(universe: &'u Universe, roots: &BTreeSet<&'u str>, problems: &mut BTreeSet<Problem>) -> Self {
        let mut nodes = BTreeMap::new();
        let mut ahead: Vec<&str> = roots.iter().copied().collect();
        while let Some(name) = ahead.pop() {
            let Some(package) = universe.get(name).filter(|_| !nodes.contains_key(name)) else { continue };
            let mut read = |text: &str| {
                relation::parse(text).unwrap_or_else(|error| {
                    problems.insert(Problem::Relation { package: name.to_owned(), problem: error.to_string() });
                    Vec::new()
                })
            };
            let depends = read(&package.depends);
            let conflicts = read(&package.conflicts).into_iter().flatten().collect();
            let provides = read(&package.provides).into_iter().flatten().collect();
            for relation in depends.iter().flatten() {
                ahead.extend(answers(universe, relation).map(|package| package.name.as_str()));
            }
            nodes.insert(package.name.as_str(), Node { package, depends, conflicts, provides });
        }
        let mut graph = Self { universe, nodes, ruled_out: BTreeSet::new() };
        // What is left when nothing more can be ruled out may need itself in a circle, which is allowed.
        loop {
            let lost: Vec<&str> = graph
                .nodes
                .iter()
                .filter(|(name, node)| {
                    !graph.ruled_out.contains(*name) && node.depends.iter().any(|group| !graph.can_meet(group))
                })
                .map(|(name, _)| *name)
                .collect();
            if lost.is_empty() {
                return graph;
            }
            graph.ruled_out.extend(lost);
        }
    }

    /// Packages that answer some alternative and can be installed, in order of preference.
    fn options<'g>(&'g self, group: &'g [Relation]) -> impl Iterator<Item = &'u Package> + 'g {
        let all = group.iter().flat_map(|relation| answers(self.universe, relation));
        all.filter(|package| !self.ruled_out.contains(package.name.as_str()))
    }

    fn can_meet(&self, group: &[Relation]) -> bool {
        self.options(group).next().is_some()
    }

    /// Finds the relations at the bottom of why a package cannot be installed.
    fn explain(&self, name: &str, seen: &mut BTreeSet<String>, problems: &mut BTreeSet<Problem>) {
        if !self.ruled_out.contains(name) || !seen.insert(name.to_owned()) {
            return;
        }
        for group in self.nodes[name].depends.iter().filter(|group| !self.can_meet(group)) {
            let lost: Vec<&Package> = group.iter().flat_map(|relation| answers(self.universe, relation)).collect();
            if lost.is_empty() {
                let found = group.iter().map(|relation| self.found(relation)).collect::<Vec<_>>().join(", ");
                problems.insert(Problem::Unmet { package: name.to_owned(), wanted: relation::show(group), found });
            }
            for package in lost {
                self.explain(package.name.as_str(), seen, problems);
            }
        }
    }

    /// What there is in place of what a relation wants.
    fn found(&self, relation: &Relation) -> String {
        match self.universe.get(&relation.name) {
            _ if !relation.here => format!("`{}` is of another architecture", relation.name),
            Some(package) => format!("found `{}` {}", relation.name, package.version),
            None if !self.universe.providers(&relation.name).is_empty() => {
                format!("`{}` is provided in other versions only", relation.name)
            }
            None => format!("nothing provides `{}`", relation.name),
        }
    }

    fn choose(&self, roots: &BTreeSet<&'u str>) -> Result<Vec<&'u Package>, BTreeSet<Problem>> {
        let mut problems = BTreeSet::new();
        let mut chosen: BTreeMap<&str, &Node> = BTreeMap::new();
        let mut forced: VecDeque<&str> = roots.iter().copied().collect();
        let mut later: VecDeque<&Alternatives> = VecDeque::new();
        loop {
            while let Some(name) = forced.pop_front() {
                let node = &self.nodes[name];
                if chosen.contains_key(name) {
                    continue;
                }
                for other in chosen.values() {
                    problems.extend(conflict(node, other));
                }
                chosen.insert(name, node);
                for group in &node.depends {
                    match (self.options(group).next(), self.options(group).nth(1)) {
                        (Some(only), None) => forced.push_back(only.name.as_str()),
                        _ => later.push_back(group),
                    }
                }
            }
            let Some(group) = later.pop_front() else { break };
            if group.iter().any(|relation| chosen.values().any(|node| node.answers(relation))) {
                continue;
            }
            let peaceful = |package: &&Package| {
                let node = &self.nodes[package.name.as_str()];
                chosen.values().all(|other| conflict(node, other).is_none())
            };
            // Where each option conflicts, the first is taken so that its conflict is reported.
            if let Some(package) = self.options(group).find(peaceful).or_else(|| self.options(group).next()) {
                forced.push_back(package.name.as_str());
            }
        }
        if problems.is_empty() { Ok(chosen.into_values().map(|node| node.package).collect()) } else { Err(problems) }
    }
}

fn conflict(a: &Node, b: &Node) -> Option<Problem> {
    let says = |one: &Node, other: &Node| {
        one.forbids(other).map(|relation| Problem::Conflict {
            package: one.package.name.to_string(),
            other: other.package.name.to_string(),
            relation: relation.to_string(),
        })
    };
    says(a, b).or_else(|| says(b, a))
}

/// Candidates that answer a relation: the package of that name, then who provides it: by priority, as the archive
/// says which awk is the usual one, then by name.
fn answers<'u>(universe: &'u Universe, relation: &Relation) -> impl Iterator<Item = &'u Package> {
    let real = universe.get(&relation.name).filter(|package| relation.admits(&package.version));
    let mut provided: Vec<&Package> = universe
        .providers(&relation.name)
        .iter()
        .filter(|(_, version)| relation.admits_provided(version.as_ref()))
        .filter_map(|(name, _)| universe.get(name))
        .collect();
    provided.sort_by_key(|package| (package.priority, &package.name));
    provided.dedup_by_key(|package| &package.name);
    real.into_iter().chain(provided)
}

#[cfg(test)]
mod tests {
    use super::super::index::tests::{entry, universe};
    use super::*;

    /// Packages as `name version / fields`, one a line, fields separated by `;`.
    fn run(packages: &str, wanted: &[&str]) -> Result<String, String> {
        let text: String = packages
            .lines()
            .filter(|line| !line.trim().is_empty())
            .map(|line| {
                let (head, fields) = line.split_once('/').unwrap_or((line, ""));
                let (name, version) = head.trim().split_once(' ').unwrap();
                entry(name, version, &fields.replace(';', "\n"))
            })
            .collect();
        let universe = universe(&[&text]);
        let join = |problems: Vec<Problem>| problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("; ");
        let chosen = solve(&universe, wanted).map_err(join)?;
        Ok(chosen.iter().map(|package| package.name.as_str()).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn closes_over_what_is_needed() {
        let rows: [(&str, &str, &[&str], &str); 15] = [
            ("chain", "aa 1/Depends: bb\nbb 1/Pre-Depends: cc\ncc 1\ndd 1", &["aa"], "aa bb cc"),
            ("cycle", "aa 1/Depends: bb\nbb 1/Depends: aa", &["bb"], "aa bb"),
            ("first alternative", "aa 1/Depends: bb | cc\nbb 1\ncc 1", &["aa"], "aa bb"),
            ("alternative already wanted", "aa 1/Depends: bb | cc\nbb 1\ncc 1", &["aa", "cc"], "aa cc"),
            ("alternative needed elsewhere", "aa 1/Depends: bb | cc, dd\nbb 1\ncc 1\ndd 1/Depends: cc", &["aa"], "aa cc dd"),
            ("first that exists", "aa 1/Depends: xx | cc\ncc 1", &["aa"], "aa cc"),
            ("first that can be installed", "aa 1/Depends: bb | cc\nbb 1/Depends: xx\ncc 1", &["aa"], "aa cc"),
            ("first whose version will do", "aa 1/Depends: bb (>= 2) | cc\nbb 1\ncc 1", &["aa"], "aa cc"),
            ("real before provider", "aa 1/Depends: bb\nbb 1\nab 1/Provides: bb", &["aa"], "aa bb"),
            ("provider by name", "aa 1/Depends: awk\nmawk 1/Provides: awk\ngawk 1/Provides: awk", &["aa"], "aa gawk"),
            (
                "provider by priority",
                "aa 1/Depends: awk\nmawk 1/Provides: awk;Priority: required\ngawk 1/Provides: awk;Priority: optional",
                &["aa"],
                "aa mawk",
            ),
            ("versioned provider", "aa 1/Depends: bb (>= 2)\ncc 1/Provides: bb\ndd 1/Provides: bb (= 2.1)", &["aa"], "aa dd"),
            ("qualified", "aa 1/Depends: bb:any, cc:i386 | cc\nbb 1\ncc 1", &["aa"], "aa bb cc"),
            ("conflict avoided", "aa 1/Depends: cc | dd;Conflicts: cc\ncc 1\ndd 1", &["aa"], "aa dd"),
            ("sole provider named", "mawk 1/Provides: awk", &["awk"], "mawk"),
        ];
        for (name, packages, wanted, expected) in rows {
            assert_eq!(run(packages, wanted).as_deref(), Ok(expected), "{name}");
        }
    }

    #[test]
    fn a_package_may_conflict_with_what_it_provides() {
        assert_eq!(run("mawk 1/Provides: mta; Conflicts: mta\nbb 1", &["mawk", "bb"]).as_deref(), Ok("bb mawk"));
        let error = run("aa 1/Provides: mta; Conflicts: mta\nbb 1/Provides: mta", &["aa", "bb"]).unwrap_err();
        assert_eq!(error, "`aa` conflicts with `bb` (mta)");
    }

    #[test]
    fn conflicts_count_by_version() {
        assert_eq!(run("aa 1/Breaks: bb (<< 2)\nbb 2", &["aa", "bb"]).as_deref(), Ok("aa bb"));
        let error = run("aa 1/Breaks: bb (<< 2)\nbb 1", &["aa", "bb"]).unwrap_err();
        assert_eq!(error, "`aa` conflicts with `bb` (bb (<< 2))");
        // A provider without a version does not answer a conflict that names one.
        assert_eq!(run("aa 1/Breaks: vv (<< 2)\nbb 1/Provides: vv", &["aa", "bb"]).as_deref(), Ok("aa bb"));
    }

    #[test]
    fn everything_wrong_is_reported_together() {
        let packages = "python3.11 1\naa 1/Depends: bb (>= 2)\nbb 1\ncc 1/Depends: dd\ndd 1/Depends: xx | ee:i386\nee 1\nff 1/Provides: vv\ngg 1/Provides: vv";
        let error = run(packages, &["pyhton3.11", "aa", "cc", "zzzzzz", "vv"]).unwrap_err();
        let expected = [
            "there is no package `pyhton3.11`, did you mean `python3.11`?",
            "there is no package `zzzzzz`",
            "`vv` is provided by ff, gg: name one of them",
            "`aa` wants bb (>= 2), found `bb` 1",
            "`dd` wants xx | ee, nothing provides `xx`, `ee` is of another architecture",
        ];
        assert_eq!(error, expected.join("; "));
    }

    #[test]
    fn an_unreadable_relation_matters_only_where_it_is_needed() {
        let packages = "aa 1\nbb 1/Depends: cc (? 1)";
        assert_eq!(run(packages, &["aa"]).as_deref(), Ok("aa"));
        assert!(run(packages, &["bb"]).unwrap_err().starts_with("package `bb`: expected a relation"));
    }
}
