//! The manual page sss(1) and the completions of the shells, made from the parser. What the parser
//! does not know, the formats of the output, is written here.

use std::io::{self, Write};

use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;

use crate::args::Cli;

pub fn completions(shell: Shell) -> Vec<u8> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "sss", &mut text);
    text
}

/// The page as roff. The commands are sections of it, not pages of their own.
pub fn page() -> io::Result<Vec<u8>> {
    let without_help = |subcommand: clap::Command| subcommand.disable_help_flag(true);
    let mut command = Cli::command().disable_help_subcommand(true).mut_subcommands(without_help);
    command.build();
    let mut text = Vec::new();
    let page = Man::new(command.clone()).title("SSS");
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    writeln!(text, ".SH DESCRIPTION\n{DESCRIPTION}")?;
    page.render_options_section(&mut text)?;
    writeln!(text, ".SH COMMANDS")?;
    for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()) {
        writeln!(text, ".SS sss {}", subcommand.get_name())?;
        let section = Man::new(subcommand.clone());
        let mut body = Vec::new();
        section.render_synopsis_section(&mut body)?;
        writeln!(body, ".PP")?;
        section.render_description_section(&mut body)?;
        section.render_options_section(&mut body)?;
        // Without the heads, which are those of a page.
        for line in body.split_inclusive(|&byte| byte == b'\n').filter(|line| !line.starts_with(b".SH ")) {
            text.write_all(line)?;
        }
    }
    text.write_all(DETAILS.as_bytes())?;
    Ok(text)
}

const DESCRIPTION: &str = "\
sss inspects and maintains a store of sessions from outside of its servers, while they use it or while none does. \
The settings of the store are those of its servers, so the URL needs no options. \
The store must exist: no command creates one. \
Run sss as the user of the servers. \
A memory: store cannot be reached from another process.";

const DETAILS: &str = r#".SH OUTPUT
On a terminal the output is for people, and may change. In a pipe or file it is stable: lines without heads, whose fields are separated by a tab; times are RFC 3339 in UTC.
.TP
\fBstats\fR
name, value
.TP
\fBwatch\fR
time, sessions, bytes; and per second: created, hits, misses, puts, deleted, renewed, conflicts, revoked, expired, rejected, errors
.TP
\fBlist\fR
reference, created, authenticated, last seen, expires, version, bytes of payload, label. A time can be "never". In a label a backslash, a control character and a character that cannot be seen, such as one that changes the direction of writing, are escaped as in Rust: \e\e, \et, \eu{202e}; a byte that is not UTF\-8 is \ex and two digits.
.TP
\fBsweep\fR
"removed", number
.TP
\fBrevoke\fR
"revoked", number
.TP
\fBcheck\fR
"sessions", number; or the findings, a line each
.PP
With \fB\-\-json\fR the output is one JSON value on a line; \fBwatch\fR prints one a line. Characters of a label that a terminal would obey are escaped.
.TP
\fBstats\fR
an object of the numbers
.TP
\fBwatch\fR
{"time", "sessions", "bytes", "rates"}; rates is an object of numbers per second
.TP
\fBlist\fR
an array of {"ref", "label", "created", "authenticated", "last_seen", "expires", "version", "bytes"}. A time that is never is null, and so is a label that is missing. A label that is not UTF\-8 is null, and "label_base64" has its bytes.
.TP
\fBsweep\fR
{"removed"}
.TP
\fBrevoke\fR
{"revoked"}
.TP
\fBcheck\fR
{"ok", "sessions", "findings"}
.PP
A label of a store with a secret_file can be shown only if the URL names that file too.
.PP
Errors are text on standard error in all formats, one line that begins with "sss: ".
.PP
A redis: store counts in each of its servers' processes, so \fBstats\fR and \fBwatch\fR show only its sessions and bytes. They read all of its keys for that.
.PP
Progress is shown on a terminal only, on standard error, for what takes longer than a second.
.SH EXIT STATUS
.TP
0
success; for \fBwatch\fR also when it is ended by Ctrl\-C or its reader
.TP
1
the store reported an error, \fBcheck\fR found damage, the output could not be written, or the question of \fBrevoke \-\-all\fR was not answered with yes
.TP
2
wrong usage
.SH ENVIRONMENT
.TP
SSS_URL
The URL of the store if none is given. A password in it is not visible to other users, as it is in an argument.
.SH EXAMPLES
.EX
sss list lmdb:/var/lib/app/sessions \-\-principal alice
sss revoke lmdb:/var/lib/app/sessions \-\-principal alice \-\-ref 3f2a91c0
sss list \-\-json \-\-principal alice | jq \-r '.[].ref'
sss revoke lmdb:/var/lib/app/sessions \-\-all \-\-yes
.EE
"#;
