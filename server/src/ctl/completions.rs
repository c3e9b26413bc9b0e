//! Ours: scripts that complete commands, columns and options in shells, made of the same tables the
//! commands are.

use super::arguments::COMMON;
use super::command::{Command, Group, Needs, Session};
use super::failure::Failure;
use super::tool::Tool;
use super::{commands, help, lists};
use std::fmt::Write;

pub(super) const COMMANDS: &[Command] = &[Command::new(
    "completions",
    &[],
    Group::Help,
    "<bash | zsh | fish>",
    "Prints a script that completes command lines; source it, or put it where the shell looks",
    (1, 1),
    completions,
)
.needs(Needs::Nothing)];

fn completions(session: &mut Session<'_>) -> Result<(), Failure> {
    let script = match session.argument(0) {
        "bash" => bash(),
        "zsh" => zsh(),
        "fish" => fish(),
        shell => {
            let text = format!("shell '{shell}' is not supported. Use one of: bash, zsh, fish");
            return Err(Failure::usage(text));
        }
    };
    Ok(session.out.raw(script.as_bytes())?)
}

/// Writing to a string does not fail.
const IN_MEMORY: &str = "a String takes every text";

/// The options of all commands, as they are typed.
fn common() -> Vec<String> {
    let turned_off = |name: &str| if name == "table-headers" { "no-" } else { "" };
    COMMON.iter().map(|name| format!("--{}{name}", turned_off(name))).collect()
}

/// The own options of a command, as they are typed.
fn own(command: &Command) -> Vec<String> {
    command.options.iter().map(|name| format!("--{name}")).collect()
}

/// Commands that have options or columns of their own, with both.
fn with_words() -> impl Iterator<Item = (&'static str, Vec<String>, Vec<&'static str>)> {
    commands().filter_map(|command| {
        let columns = lists::columns_of(command.name).unwrap_or_default();
        let options = own(command);
        (!options.is_empty() || !columns.is_empty()).then_some((command.name, options, columns))
    })
}

fn tool_names() -> String {
    Tool::ALL.map(Tool::name).join(" ")
}

fn bash() -> String {
    let mut script = String::from(
        "# Completes leveretctl and the tools it answers as.\n\
         _leveret_complete() {\n    \
             local tool=\"${COMP_WORDS[0]##*/}\" cur=\"${COMP_WORDS[COMP_CWORD]}\"\n    \
             local word command=\"\" commands columns=\"\" options\n    \
             case \"$tool\" in\n",
    );
    for tool in Tool::ALL {
        let names = help::names(tool).join(" ");
        writeln!(script, "        {}) commands=\"{names}\" ;;", tool.name()).expect(IN_MEMORY);
    }
    let common = common().join(" ");
    write!(
        script,
        "    esac\n    \
             for word in \"${{COMP_WORDS[@]:1:COMP_CWORD-1}}\"; do\n        \
                 case \" $commands \" in *\" $word \"*) command=\"$word\"; break ;; esac\n    \
             done\n    \
             options=\"{common}\"\n    \
             case \"$command\" in\n"
    )
    .expect(IN_MEMORY);
    for (name, options, columns) in with_words() {
        writeln!(
            script,
            "        {name}) options=\"$options {}\"; columns=\"{}\" ;;",
            options.join(" "),
            columns.join(" ")
        )
        .expect(IN_MEMORY);
    }
    write!(
        script,
        "    esac\n    \
             if [[ $cur == -* ]]; then\n        \
                 COMPREPLY=($(compgen -W \"$options\" -- \"$cur\"))\n    \
             elif [[ -z $command ]]; then\n        \
                 COMPREPLY=($(compgen -W \"$commands\" -- \"$cur\"))\n    \
             else\n        \
                 COMPREPLY=($(compgen -W \"$columns\" -- \"$cur\"))\n    \
             fi\n\
         }}\n\
         complete -o default -F _leveret_complete {}\n",
        tool_names()
    )
    .expect(IN_MEMORY);
    script
}

/// A text between apostrophes.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

fn zsh() -> String {
    let mut script = format!(
        "#compdef {}\n\
         # Completes leveretctl and the tools it answers as.\n\
         _leveretctl() {{\n    \
             local -a commands options columns\n    \
             local word command\n    \
             case \"${{words[1]:t}}\" in\n",
        tool_names()
    );
    for tool in Tool::ALL {
        let lines: Vec<String> = help::listed(tool)
            .map(|command| {
                quoted(&format!("{}:{}", command.name, command.summary.replace(':', "\\:")))
            })
            .collect();
        writeln!(script, "        {}) commands=({}) ;;", tool.name(), lines.join(" "))
            .expect(IN_MEMORY);
    }
    write!(
        script,
        "    esac\n    \
             for word in \"${{(@)words[2,CURRENT-1]}}\"; do\n        \
                 if [[ -n ${{(M)commands:#$word:*}} ]]; then command=$word; break; fi\n    \
             done\n    \
             options=({})\n    \
             case \"$command\" in\n",
        common().join(" ")
    )
    .expect(IN_MEMORY);
    for (name, options, columns) in with_words() {
        writeln!(
            script,
            "        {name}) options+=({}); columns=({}) ;;",
            options.join(" "),
            columns.join(" ")
        )
        .expect(IN_MEMORY);
    }
    script.push_str(
        "    esac\n    \
             if [[ $PREFIX == -* ]]; then\n        \
                 compadd -- $options\n    \
             elif [[ -z $command ]]; then\n        \
                 _describe command commands\n    \
             elif (( $#columns )); then\n        \
                 compadd -- $columns\n    \
             else\n        \
                 _files\n    \
             fi\n\
         }\n\
         _leveretctl \"$@\"\n",
    );
    script
}

fn fish() -> String {
    let mut script = String::from("# Completes leveretctl and the tools it answers as.\n");
    for tool in Tool::ALL {
        let name = tool.name();
        for option in common() {
            writeln!(script, "complete -c {name} -l {}", option.trim_start_matches('-'))
                .expect(IN_MEMORY);
        }
        for command in help::listed(tool) {
            let summary = quoted(command.summary);
            writeln!(
                script,
                "complete -c {name} -n __fish_use_subcommand -f -a {} -d {summary}",
                command.name
            )
            .expect(IN_MEMORY);
            let seen = format!("-n '__fish_seen_subcommand_from {}'", command.name);
            for option in command.options {
                writeln!(script, "complete -c {name} {seen} -l {option}").expect(IN_MEMORY);
            }
            if let Some(columns) = lists::columns_of(command.name) {
                writeln!(script, "complete -c {name} {seen} -f -a {}", quoted(&columns.join(" ")))
                    .expect(IN_MEMORY);
            }
        }
    }
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What bash offers for the last word of a line.
    fn offered(line: &[&str]) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("completions");
        std::fs::write(&file, bash()).unwrap();
        let words: Vec<String> = line.iter().map(|word| quoted(word)).collect();
        let script = format!(
            "source {}; COMP_WORDS=({}); COMP_CWORD={}; _leveret_complete; echo \"${{COMPREPLY[@]}}\"",
            file.display(),
            words.join(" "),
            line.len() - 1
        );
        let output = std::process::Command::new("bash").arg("-c").arg(script).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        let offered = String::from_utf8(output.stdout).unwrap();
        offered.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn bash_completes_commands_columns_and_options() {
        let check = |line: &[&str], expected: &[&str]| assert_eq!(offered(line), expected);
        check(&["rabbitmqctl", "list_q"], &["list_queues"]);
        check(&["/usr/sbin/rabbitmq-upgrade", "-q", "dr"], &["drain"]);
        check(
            &["rabbitmqctl", "list_queues", "messages_re"],
            &["messages_ready", "messages_ready_ram"],
        );
        check(&["leveretctl", "list_queues", "--off"], &["--offline"]);
        check(&["leveretctl", "-p", "v", "--no-t"], &["--no-table-headers"]);
        check(&["rabbitmq-plugins", "enable", "--on"], &["--online"]);
        check(&["rabbitmq-plugins", "list_q"], &[]);
    }

    #[test]
    fn every_listed_command_is_completed_in_every_shell() {
        let (bash, zsh, fish) = (bash(), zsh(), fish());
        for command in help::listed(Tool::Leveretctl) {
            let name = command.name;
            assert!(bash.contains(&format!(" {name}")), "{name}");
            assert!(zsh.contains(&format!("'{name}:")), "{name}");
            assert!(fish.contains(&format!("-a {name} -d ")), "{name}");
        }
    }
}
