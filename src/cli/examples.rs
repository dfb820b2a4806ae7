//! What stands below a command's arguments in its help: examples that work as they stand, and the
//! words of tables and keys. `arguments` says which command has which.

pub(super) const ALL: &str = "\
Examples:
  evenkeel run --listen 127.0.0.1:8080 --server 127.0.0.1:9001 --server 127.0.0.1:9002
  evenkeel check evenkeel.yaml
  evenkeel run -c evenkeel.yaml
  evenkeel status
  evenkeel drain web/a --rate 20/s --wait";

pub(super) const RUN: &str = "\
Examples:
  evenkeel run
      as /etc/evenkeel/evenkeel.yaml says
  evenkeel run -c evenkeel.yaml
      as another file says
  evenkeel run --listen 127.0.0.1:8080 --server 127.0.0.1:9001 --server 127.0.0.1:9002
      without a file: one listener and one pool, both called default
  evenkeel run --listen 0.0.0.0:80 --server 10.0.0.11:80@3 --server 10.0.0.12:80 \\
               --algorithm round_robin --check http:/health
      three quarters of the connections go to the first server";

pub(super) const STATUS: &str = "\
Examples:
  evenkeel status
      of the evenkeel on this machine
  evenkeel status --node lb1 lb2 10.0.0.4:9901
      of three, side by side: who is ready, and each server as each of them sees it;
      exit code 1 if one of them does not answer";

pub(super) const DRAIN: &str = "\
Without --rate nobody is cut, however long it takes; --deadline is then how long --wait waits.

Examples:
  evenkeel drain web/a --wait --deadline 1h
      until the last client has gone by itself; exit code 1 if some are left after an hour
  evenkeel drain web/a --rate 20/s --quiet 200ms --deadline 10m --wait
      close at most 20 a second, each once it has been silent for 200ms, the rest after 10 minutes
  evenkeel ready web/a
      take connections again";

pub(super) const DOCTOR: &str = "\
Exit code 1 where something is low or wrong. Nothing is changed.
Limits are those of the evenkeel that answers at the admin socket; where none does, those of
this shell, and a unit's LimitNOFILE or CPUQuota may say otherwise.

Examples:
  evenkeel doctor
      for /etc/evenkeel/evenkeel.yaml
  evenkeel doctor -c new.yaml --json
      for another file, as JSON";

pub(super) const RELOAD: &str = "\
Examples:
  evenkeel plan -c new.yaml
      what would change, and how many connections each change touches
  evenkeel reload -c new.yaml --confirm 60s
      change it, and back again after a minute unless `evenkeel confirm` comes before";

pub(super) const UPGRADE: &str = "\
The new process reads the configuration file that is in use. Where it cannot take over, the one that
runs goes on as if nothing had happened, and the exit code is 1.

Examples:
  evenkeel upgrade
      after the program was replaced, by a package or by make install; also for settings that need a
      restart, such as workers or admin.http
  evenkeel upgrade --binary /opt/evenkeel-0.2.0/evenkeel
      another program";

pub(super) const CONNECTIONS_COLUMNS: &str = "\
UP and DOWN are bytes from the client to the server, and back; /S in a second, over half of one.
RTT MS, RETRANS and UNSENT (bytes) are those of the client's side, then of the server's side.
LIMITED BY is who sets the pace: client (does not read), server (is silent), network (loses), or
evenkeel. Columns that do not fit are left out; --json has everything.";

pub(super) const TOP_KEYS: &str = "\
Keys:
  q, Esc     leave                p  pause
  j, k, arrows, PgUp, PgDn: scroll
  s          sort the servers     ?  help";
