//! RE2's syntax in that of the `regex` crate. What both read alike passes; what they would read differently is rewritten or
//! refused.

use std::fmt::Write as _;
use std::iter::Peekable;
use std::str::Chars;

use super::InvalidRegex;

/// The most often something may be repeated in RE2.
const MAX_REPETITION: u32 = 1000;

/// The pattern for the `regex` crate.
pub(super) fn translate(pattern: &str) -> Result<String, InvalidRegex> {
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut rest = pattern.chars().peekable();
    while let Some(letter) = rest.next() {
        match letter {
            '\\' => escape(&mut rest, &mut out)?,
            '[' => class(&mut rest, &mut out)?,
            '(' => group(&mut rest, &mut out)?,
            // RE2 takes a brace that begins no repetition for itself: `/users/{id}`.
            '{' if !repetition(rest.clone())? => out.push_str(r"\{"),
            other => out.push(other),
        }
    }
    Ok(out)
}

type Rest<'a> = Peekable<Chars<'a>>;

fn refuse<T>(why: &'static str) -> Result<T, InvalidRegex> {
    Err(InvalidRegex::Syntax(why.into()))
}

/// What follows a backslash, outside of a class.
fn escape(rest: &mut Rest<'_>, out: &mut String) -> Result<(), InvalidRegex> {
    match rest.peek().copied() {
        Some('Q') => {
            rest.next();
            quoted(rest, out);
            Ok(())
        }
        Some('C') => {
            rest.next();
            out.push_str("(?s-u:.)");
            Ok(())
        }
        _ => escaped(rest, out),
    }
}

/// `\Q…\E`: the text itself. Without `\E` it goes on to the end.
fn quoted(rest: &mut Rest<'_>, out: &mut String) {
    let mut text = String::new();
    while let Some(letter) = rest.next() {
        if letter == '\\' && rest.peek() == Some(&'E') {
            rest.next();
            break;
        }
        text.push(letter);
    }
    out.push_str(&regex::escape(&text));
}

/// An escape that classes have, too.
fn escaped(rest: &mut Rest<'_>, out: &mut String) -> Result<(), InvalidRegex> {
    let Some(letter) = rest.next() else { return refuse("it ends in a backslash") };
    match letter {
        '8' | '9' => return refuse("there are no back-references"),
        digit @ '0'..='7' => return octal(digit, rest, out),
        'u' | 'U' => return refuse(r"a character is written \x{10FFFF}, not \u or \U"),
        'E' | 'Q' | 'C' => return refuse(r"\Q, \E and \C have no meaning here"),
        // The `regex` crate takes these for the edges of words.
        '<' | '>' => out.push(letter),
        other => {
            out.push('\\');
            out.push(other);
            if matches!(other, 'p' | 'P' | 'x') && rest.peek() == Some(&'{') {
                return until('}', rest, out);
            }
        }
    }
    Ok(())
}

/// Copies what belongs together, up to its end.
fn until(end: char, rest: &mut Rest<'_>, out: &mut String) -> Result<(), InvalidRegex> {
    for letter in rest.by_ref() {
        out.push(letter);
        if letter == end {
            return Ok(());
        }
    }
    refuse("a brace or bracket is not closed")
}

/// `\123`; one digit alone would be a back-reference, unless it is 0.
fn octal(first: char, rest: &mut Rest<'_>, out: &mut String) -> Result<(), InvalidRegex> {
    let mut code = first.to_digit(8).unwrap_or_default();
    let mut digits = 1;
    while digits < 3
        && let Some(digit) = rest.peek().and_then(|next| next.to_digit(8))
    {
        rest.next();
        code = code * 8 + digit;
        digits += 1;
    }
    if digits == 1 && first != '0' {
        return refuse("there are no back-references");
    }
    write!(out, r"\x{{{code:x}}}").map_err(|_| InvalidRegex::Syntax("an octal escape".into()))
}

/// `[…]`: no nesting and no arithmetic of sets in RE2, so their signs stand for themselves.
fn class(rest: &mut Rest<'_>, out: &mut String) -> Result<(), InvalidRegex> {
    out.push('[');
    if rest.next_if_eq(&'^').is_some() {
        out.push('^');
    }
    if rest.next_if_eq(&']').is_some() {
        out.push_str(r"\]");
    }
    while let Some(letter) = rest.next() {
        match letter {
            ']' => {
                out.push(']');
                return Ok(());
            }
            '[' if rest.peek() == Some(&':') => {
                out.push('[');
                until(']', rest, out)?;
            }
            '[' | '&' | '~' => {
                out.push('\\');
                out.push(letter);
            }
            '-' if rest.peek() == Some(&'-') => return refuse(r"write \- for a hyphen in a class"),
            '\\' => escaped(rest, out)?,
            other => out.push(other),
        }
    }
    refuse("a class is not closed")
}

/// After `(`: flags that RE2 has; the `regex` crate has more, with other meanings.
fn group(rest: &mut Rest<'_>, out: &mut String) -> Result<(), InvalidRegex> {
    out.push('(');
    if rest.next_if_eq(&'?').is_none() {
        return Ok(());
    }
    out.push('?');
    if matches!(rest.peek(), Some('P' | '<')) {
        return Ok(());
    }
    for letter in rest.by_ref() {
        out.push(letter);
        match letter {
            ':' | ')' => return Ok(()),
            'i' | 'm' | 's' | 'U' | '-' => {}
            _ => return refuse("the flags of a group are i, m, s and U; there is no look-around"),
        }
    }
    refuse("a group is not closed")
}

/// Whether what follows `{` is a repetition: `2}`, `2,}` or `2,3}`.
fn repetition(rest: Rest<'_>) -> Result<bool, InvalidRegex> {
    let text: String = rest.take_while(|letter| *letter != '}').take(12).collect();
    let (least, most) = text.split_once(',').unwrap_or((&text, ""));
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !number(least) || !(most.is_empty() || number(most)) {
        return Ok(false);
    }
    let allowed =
        |text: &str| text.is_empty() || text.parse().is_ok_and(|times: u32| times <= MAX_REPETITION);
    if allowed(least) && allowed(most) { Ok(true) } else { refuse("more than 1000 repetitions") }
}
