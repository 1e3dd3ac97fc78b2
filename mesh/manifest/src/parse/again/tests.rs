//! Read again or read as a whole: the same objects, places and findings, whatever was edited.

use super::*;
use crate::parse::parse;

/// Draws numbers below a bound.
fn drawing(seed: u64) -> impl FnMut(usize) -> usize {
    let mut number = seed;
    move |bound| {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (number >> 33) as usize % bound
    }
}

/// A rule for HTTP, some of them in several lines, and some with what could be taken for something else.
fn rule(number: usize, kind: usize) -> String {
    match kind {
        0..=5 => format!(
            "  - {{match: [{{uri: {{prefix: /r/{number}/}}}}], route: [{{destination: {{host: app}}}}]}}\n"
        ),
        6 => format!(
            "  - match:\n    - uri: {{exact: /e/{number}}}\n    # a comment\n    route:\n    - destination:\n        host: app\n"
        ),
        7 => format!(
            "  - name: >-\n      several\n      - lines {number}\n\n    route: [{{destination: {{host: app}}}}]\n"
        ),
        8 => format!(
            "  - directResponse:\n      status: 200\n      body:\n        string: |\n          - not: a rule\n          http: {number}\n"
        ),
        9 => format!(
            "  - redirect: {{uri: \"/a\n      - b {number}\"}}\n\n# between\n  - route: [{{destination: {{host: app}}}}]\n"
        ),
        _ => format!("  -   match: [{{method: {{regex: 'GET|.*{number}'}}}}]\n      redirect: {{uri: /}}\n"),
    }
}

fn text(draw: &mut impl FnMut(usize) -> usize, behind: &str) -> String {
    let mut text =
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: app, namespace: bench}\n\
         spec:\n  hosts: [app]\n  http:\n"
            .to_owned();
    // Long enough to be remembered.
    (0..120).for_each(|number| text.push_str(&rule(number, draw(11))));
    text + behind
}

/// What may stand behind the rules.
const BEHIND: [&str; 4] = [
    "",
    "  exportTo: ['.']\n",
    "  tcp:\n  - route: [{destination: {host: app}}]\nstatus: {}\n",
    "# the end\n",
];

/// One edit of a text.
fn edited(text: &str, draw: &mut impl FnMut(usize) -> usize) -> String {
    let mut lines: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
    let at = draw(lines.len());
    match draw(12) {
        0..=3 => lines[at] = lines[at].replacen(['1', '2', '3', '5'], "77", 1),
        4 => drop(lines.remove(at)),
        5 => lines.insert(at, rule(at, draw(11))),
        6 => {
            let line = lines[at].clone();
            lines.insert(at, line);
        }
        7 => lines[at] = format!(" {}", lines[at]),
        8 => {
            let end = (at + draw(6)).min(lines.len());
            drop(lines.drain(at..end));
        }
        9 => {
            const WORDS: [&str; 12] = [
                "---\n",
                "...\n",
                "  - &a {}\n",
                "  - *a\n",
                "'",
                "\"",
                "[",
                "    ",
                "# x\n",
                "\n",
                "\t",
                "  -\n",
            ];
            lines.insert(at, WORDS[draw(WORDS.len())].to_owned());
        }
        10 => {
            let other = draw(lines.len());
            lines.swap(at, other);
        }
        _ => lines[at] = lines[at].trim_start().to_owned(),
    }
    lines.concat()
}

/// Whether both are the same to the last place.
fn same(one: &Parsed, other: &Parsed) -> bool {
    let alike = |(one, other): (&Object, &Object)| {
        let (Typed::VirtualService(rules), Typed::VirtualService(others)) = (&one.spec, &other.spec) else {
            return false;
        };
        rules == others
            && one.tree() == other.tree()
            && one.position == other.position
            && one.metadata == other.metadata
            && one.key() == other.key()
    };
    one.findings == other.findings
        && one.is_plain == other.is_plain
        && one.objects.len() == other.objects.len()
        && one.objects.iter().zip(&other.objects).all(alike)
}

/// How many texts are edited: `LATEEN_FULL=1` for many.
fn rounds() -> u64 {
    if std::env::var_os("LATEEN_FULL").is_some() { 1000 } else { 15 }
}

#[test]
fn what_is_read_again_is_what_is_read_as_a_whole() {
    let file: Arc<Path> = Arc::from(Path::new("routes.yaml"));
    let (mut again, mut whole) = (0, 0);
    for seed in 0..rounds() {
        let mut draw = drawing(seed);
        let behind = BEHIND[draw(BEHIND.len())];
        let mut before = text(&mut draw, behind);
        let parsed = parse(&before, &file);
        let objects: Vec<_> = parsed.objects.into_iter().map(Arc::new).collect();
        let Some(mut earlier) = Earlier::new(before.clone(), parsed.is_plain, &objects) else {
            panic!("{:?}", parsed.findings)
        };
        for _ in 0..8 {
            let after = edited(&before, &mut draw);
            let wanted = parse(&after, &file);
            let Some(found) = earlier.reread(&after, &file) else {
                whole += 1;
                continue;
            };
            again += 1;
            assert!(same(&found, &wanted), "seed {seed}: {before:?} became {after:?}");
            // And on from there: what is shared is shared with what was read again, too.
            let objects: Vec<_> = found.objects.into_iter().map(Arc::new).collect();
            let next = Earlier::new(after.clone(), found.is_plain, &objects);
            (earlier, before) = (next.expect("it was worth it before"), after);
        }
    }
    // Neither is an exception.
    assert!(again > 20 && whole > 10, "{again} again, {whole} as a whole");
}

#[test]
fn a_change_costs_what_has_changed() {
    let file: Arc<Path> = Arc::from(Path::new("routes.yaml"));
    let before = text(&mut drawing(1), "");
    let objects: Vec<_> = parse(&before, &file).objects.into_iter().map(Arc::new).collect();
    let earlier = Earlier::new(before.clone(), true, &objects).expect("it is worth it");
    let Typed::VirtualService(old) = &objects[0].spec else { panic!("{:?}", objects[0].spec) };
    let lines: Vec<&str> = before.split_inclusive('\n').collect();
    let middle = lines.iter().skip(60).position(|line| line.contains("prefix: /r/")).expect("one") + 60;
    let changed = lines[middle].replace("/r/", "/changed/");
    let after = [lines[..middle].concat(), changed, lines[middle + 1..].concat()].concat();
    let found = earlier.reread(&after, &file).expect("one rule is another");
    let Typed::VirtualService(new) = &found.objects[0].spec else { panic!("{:?}", found.objects[0].spec) };
    let others = new.http.iter().zip(&old.http).filter(|(new, old)| !Arc::ptr_eq(new, old)).count();
    assert!((1..=2).contains(&others), "{others} rules were read");
}

#[test]
fn others_are_read_as_a_whole() {
    let file: Arc<Path> = Arc::from(Path::new("routes.yaml"));
    let remembered = |text: &str| {
        let parsed = parse(text, &file);
        let objects: Vec<_> = parsed.objects.into_iter().map(Arc::new).collect();
        Earlier::new(text.to_owned(), parsed.is_plain, &objects).is_some()
    };
    let plain = text(&mut drawing(1), "");
    assert!(remembered(&plain));
    let named = plain.replacen("hosts: [app]", "hosts: &hosts [app]", 1);
    let two = format!("{plain}---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: a}}\n");
    let wrong = plain.replacen("hosts: [app]", "hosts: [app], colour: red", 1);
    let indented: String = plain.lines().map(|line| format!("    {line}\n")).collect();
    let listed = format!("apiVersion: v1\nitems:\n  -\n{indented}kind: List\n");
    assert_eq!(parse(&listed, &file).objects.len(), 1);
    for other in [
        &listed,
        &named,
        &two,
        &wrong,
        &format!("%YAML 1.2\n---\n{plain}"),
        &plain.replace('\n', "\r\n"),
        &plain[..WORTH / 2].to_owned(),
    ] {
        assert!(!remembered(other), "{other}");
    }
    let earlier = Earlier::new(
        plain.clone(),
        true,
        &parse(&plain, &file).objects.into_iter().map(Arc::new).collect::<Vec<_>>(),
    );
    let elsewhere = plain.replacen("name: app", "name: other", 1);
    assert!(earlier.expect("it is worth it").reread(&elsewhere, &file).is_none());
    // What stood behind the rules goes with the end of the text.
    let behind = text(&mut drawing(1), "  exportTo: ['.']\n");
    let objects: Vec<_> = parse(&behind, &file).objects.into_iter().map(Arc::new).collect();
    let earlier = Earlier::new(behind.clone(), true, &objects).expect("it is worth it");
    assert!(earlier.reread(&behind.replace("  exportTo: ['.']\n", ""), &file).is_none());
}
