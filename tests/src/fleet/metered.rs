//! Replicas that export a metric which the test sets for each of them, and write down every time that they
//! are asked for it: so a test knows what was measured, whatever the time.

use std::{
    fs,
    path::{Path, PathBuf},
};

use muster_proto::replicas::v1::{Port, RunSpec, ServiceSpec};

use super::{retry, witness::Witness};

/// The metric that the replicas export.
pub const METRIC: &str = "requests_waiting";

/// The folder in which the replicas of one service find their loads and leave their marks.
#[derive(Debug)]
pub struct Metered {
    folder: PathBuf,
    /// What they have written down: `start`, `stop`, `scraped` and `odd`.
    pub witness: Witness,
}

/// Answers every request with the load of its replica, or once with an odd one if there is one. Before its
/// load is set, it is 0.
const SCRIPT: &str = r#"
use IO::Socket::INET;
chdir(shift) or exit 9;
my ($n) = $ENV{MUSTER_REPLICA} =~ m{/(\d+)$};
sub mark { open(my $marks, ">>", "marks") or exit 9; print $marks "$_[0] $n $ENV{MUSTER_ATTEMPT} $$\n"; }
sub text { open(my $file, "<", $_[0]) or return "METRIC 0\n"; local $/; return <$file>; }
$SIG{TERM} = sub { mark("stop"); exit 0; };
$SIG{PIPE} = "IGNORE";
my $port = IO::Socket::INET->new(LocalAddr => "127.0.0.1", LocalPort => $ENV{PORT}, Listen => 16, ReuseAddr => 1);
$port or exit 8;
mark("start");
while (1) {
    my $client = $port->accept or next;
    while (my $line = <$client>) { last if $line =~ /^\r?\n$/; }
    my $odd = rename("odd-$n", "was-odd-$n");
    my $text = text($odd ? "was-odd-$n" : "load-$n");
    my $length = length($text);
    print $client "HTTP/1.1 200 OK\r\nContent-Length: $length\r\nConnection: close\r\n\r\n$text";
    close($client);
    mark($odd ? "odd" : "scraped");
}
"#;

impl Metered {
    /// Of a service, in a folder of its own inside `folder`.
    pub fn new(folder: &Path, service: &str) -> Self {
        Self {
            folder: Witness::folder(folder, service),
            witness: Witness::new(folder, service),
        }
    }

    /// A service of such replicas, without a policy of scaling.
    pub fn spec(&self, name: &str) -> ServiceSpec {
        let mut spec = self.witness.spec(name, 1, retry());
        let words = ["perl", "-e", &SCRIPT.replace("METRIC", METRIC)];
        let folder = self.folder.display().to_string();
        spec.run = Some(RunSpec {
            command: words
                .iter()
                .copied()
                .chain([&*folder])
                .map(str::to_owned)
                .collect(),
            ports: vec![Port {
                number: 8000,
                ..Port::default()
            }],
            ..spec.run.unwrap_or_default()
        });
        spec
    }

    /// What a replica exports from now on, in two series.
    pub fn load(&self, ordinal: i32, value: f64) {
        self.order(&format!("load-{ordinal}"), value);
    }

    /// What a replica exports once, when it is asked next.
    pub fn odd(&self, ordinal: i32, value: f64) {
        self.order(&format!("odd-{ordinal}"), value);
    }

    fn order(&self, file: &str, value: f64) {
        let half = value / 2.0;
        let text = format!("{METRIC}{{model=\"a\"}} {half}\n{METRIC}{{model=\"b\"}} {half}\n");
        let new = self.folder.join("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, self.folder.join(file)).unwrap();
    }
}
