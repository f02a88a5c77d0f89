//! Symbolic links: followed to what is granted, and nowhere else.

use std::fs;
use std::os::unix::fs::symlink;

use pyisolate_abi::pickle::Value;

use crate::setup::*;

/// Asks in every way for what lies behind a path, which must not be given or changed; by ordinary
/// means it is.
#[track_caller]
fn refused(cell: &Cell, place: &Place, rest: &str) {
    let path = place.at(rest);
    for action in ["read", "open", "list", "stat", "exists"] {
        denied(cell.on(action, &path));
    }
    denied(cell.write(&path, b"overwritten"));
    denied(cell.append(&path, b"more"));
    for mode in ["w", "a", "r+", "w+", "a+"] {
        denied(cell.open(&path, mode));
    }
    denied(cell.ask("truncate", &[("path", text(&path)), ("size", Value::Int(0))]));
    // The control: the path does lead there.
    assert_eq!(fs::read(&path).unwrap(), SECRET);
}

#[test]
fn links_out_are_refused() {
    let place = Place::new();
    let cell = place.cell(&[("rw", "in")]);
    symlink(place.at("out/secret"), place.at("in/absolute")).unwrap();
    symlink("../out/secret", place.at("in/relative")).unwrap();
    symlink("relative", place.at("in/chain")).unwrap();
    symlink("../in/chain", place.at("in/longer")).unwrap();
    symlink(place.at("out"), place.at("in/folder")).unwrap();
    symlink("folder/../out/secret", place.at("in/parent")).unwrap();
    symlink("/proc/self/root", place.at("in/top")).unwrap();
    symlink(format!("/proc/self/root{}", place.text("out")), place.at("in/magic")).unwrap();
    for rest in ["absolute", "relative", "chain", "longer", "folder/secret", "parent"] {
        refused(&cell, &place, &format!("in/{rest}"));
    }
    refused(&cell, &place, &format!("in/top{}", place.text("out/secret")));
    refused(&cell, &place, "in/magic/secret");
    // What is there and what is not looks the same.
    by_policy(cell.on("exists", place.at("in/folder/none")));
    by_policy(cell.write(place.at("in/folder/new"), b"x"));
    by_policy(cell.on("mkdir", place.at("in/folder/new")));
    by_policy(cell.on("remove", place.at("in/folder/secret")));
    by_policy(cell.rename(place.at("in/folder/secret"), place.at("in/mine")));
    by_policy(cell.rename(place.at("in/public"), place.at("in/folder/theirs")));
    assert!(!place.at("out/new").exists() && place.at("out/secret").exists());
}

#[test]
fn the_denial_names_where_the_link_leads() {
    let place = Place::new();
    let cell = place.cell(&[("r", "in")]);
    symlink("../out/secret", place.at("in/link")).unwrap();
    let denied = denied(cell.read(place.at("in/link")));
    assert!(denied.reason.contains(&place.text("out/secret")), "{denied:?}");
    assert!(denied.grant.is_some_and(|grant| grant.contains(&place.text("out/secret"))));
}

#[test]
fn links_to_denied_names_are_refused() {
    let place = Place::new();
    fs::create_dir(place.at("in/keys")).unwrap();
    fs::write(place.at("in/keys/a.key"), SECRET).unwrap();
    symlink("keys/a.key", place.at("in/plain.txt")).unwrap();
    symlink("keys", place.at("in/k")).unwrap();
    symlink("keys/../public", place.at("in/through")).unwrap();
    fs::write(place.at("in/b.key"), SECRET).unwrap();
    symlink("b.key", place.at("in/b.txt")).unwrap();
    let cell = place.cell(&[("rw", "in"), ("!rw", "in/keys"), ("!rw", "in/*.key")]);
    for rest in ["in/plain.txt", "in/k/a.key", "in/b.txt", "in/b.key"] {
        refused(&cell, &place, rest);
    }
    // A way through what is denied to what is not leads where the kernel's leads.
    assert_eq!(cell.read(place.at("in/through")).unwrap(), PUBLIC);
}

#[test]
fn links_within_what_is_granted_work() {
    let place = Place::new();
    fs::create_dir_all(place.at("in/a/b")).unwrap();
    fs::create_dir(place.at("more")).unwrap();
    fs::write(place.at("more/file"), b"more").unwrap();
    symlink("../public", place.at("in/a/up")).unwrap();
    symlink(place.at("in/a"), place.at("in/absolute")).unwrap();
    symlink("../more", place.at("in/across")).unwrap();
    symlink("a/b/..", place.at("in/dots")).unwrap();
    symlink("new", place.at("in/dangling")).unwrap();
    let cell = place.cell(&[("rw", "in"), ("r", "more")]);
    for rest in ["in/a/up", "in/absolute/up", "in/dots/up", "in/absolute/b/../up"] {
        assert_eq!(cell.read(place.at(rest)).unwrap(), PUBLIC, "{rest}");
    }
    assert_eq!(cell.read(place.at("in/across/file")).unwrap(), b"more");
    by_policy(cell.write(place.at("in/across/file"), b"x"));
    // A link that leads to nothing yet.
    assert_eq!(cell.on("exists", place.at("in/dangling")).unwrap().value, Value::Bool(false));
    assert_eq!(errno(cell.read(place.at("in/dangling"))), ENOENT);
    assert_eq!(errno(cell.open(place.at("in/dangling"), "x")), EEXIST);
    cell.write(place.at("in/dangling"), b"made").unwrap();
    assert_eq!(fs::read(place.at("in/new")).unwrap(), b"made");
    assert!(place.at("in/dangling").is_symlink());
}

#[test]
fn the_link_itself() {
    let place = Place::new();
    symlink("../out/secret", place.at("in/link")).unwrap();
    let cell = place.cell(&[("rw", "in")]);
    let stat = |follow| {
        cell.ask("stat", &[("path", text(place.at("in/link"))), ("follow", Value::Bool(follow))])
    };
    assert_eq!(number(&stat(false).unwrap().value, "mode") & 0o170_000, 0o120_000);
    by_policy(stat(true));
    cell.rename(place.at("in/link"), place.at("in/moved")).unwrap();
    refused(&cell, &place, "in/moved");
    cell.on("remove", place.at("in/moved")).unwrap();
    assert!(!place.at("in/moved").is_symlink());
    assert_eq!(fs::read(place.at("out/secret")).unwrap(), SECRET);
}

#[test]
fn too_many_links_are_an_error() {
    let place = Place::new();
    let cell = place.cell(&[("r", "in")]);
    symlink("self", place.at("in/self")).unwrap();
    symlink("b", place.at("in/a")).unwrap();
    symlink("a", place.at("in/b")).unwrap();
    for rest in ["in/self", "in/a", "in/a/x"] {
        assert_eq!(errno(cell.read(place.at(rest))), ELOOP);
        assert_eq!(cell.on("exists", place.at(rest)).unwrap().value, Value::Bool(false));
    }
    symlink("public", place.at("in/0")).unwrap();
    for number in 1..=40 {
        symlink((number - 1).to_string(), place.at(&format!("in/{number}"))).unwrap();
    }
    assert_eq!(cell.read(place.at("in/39")).unwrap(), PUBLIC);
    assert_eq!(errno(cell.read(place.at("in/40"))), ELOOP);
}

#[test]
fn a_root_is_the_hosts_word() {
    let place = Place::new();
    symlink("in", place.at("data")).unwrap();
    symlink("public", place.at("in/relative")).unwrap();
    symlink(place.at("in/public"), place.at("in/absolute")).unwrap();
    symlink("../out/secret", place.at("in/out")).unwrap();
    fs::create_dir(place.at("in/keys")).unwrap();
    fs::write(place.at("in/keys/key"), SECRET).unwrap();
    let cell = place.cell(&[("rw", "data"), ("!rw", "in/keys")]);
    assert_eq!(cell.read(place.at("data/public")).unwrap(), PUBLIC);
    assert_eq!(cell.read(place.at("data/relative")).unwrap(), PUBLIC);
    // Only names below the root as the policy has it are granted.
    by_policy(cell.read(place.at("data/absolute")));
    by_policy(cell.read(place.at("in/public")));
    by_broker(cell.read(place.at("data/out")));
    // A denial of the place itself holds, also for a handle that was opened before.
    let reason = by_broker(cell.read(place.at("data/keys/key")));
    assert!(!reason.contains(&place.text("in/keys")), "{reason}");
    assert!(!cell.names(place.at("data")).contains(&"keys dir".to_owned()));
    let handle = cell.handle(place.at("data/public"), "r");
    cell.0.set_policy(place.policy(&[("rw", "data"), ("!rw", "in")]).into());
    by_broker(cell.ask("read", &[("handle", handle)]));
}

#[test]
fn a_root_that_the_cell_could_turn_into_a_link_is_not_followed() {
    let place = Place::new();
    fs::create_dir(place.at("in/sub")).unwrap();
    fs::create_dir(place.at("other")).unwrap();
    // A link of the host's that the cell can see, and move to where a root is to be.
    symlink(place.at("out"), place.at("in/link")).unwrap();
    symlink("in", place.at("alias")).unwrap();
    let rules: &[(&str, &str)] = &[("rw", "in/sub"), ("rw", "alias"), ("r", "in/sub/root")];
    let cell = place.cell(rules);
    symlink(place.at("out"), place.at("in/sub/root")).unwrap();
    let reason = by_broker(cell.read(place.at("in/sub/root/secret")));
    assert!(reason.contains("could have made"), "{reason}");
    // Also where it can write it only by another name.
    let cell = place.cell(&[("rw", "alias"), ("r", "in/sub/root")]);
    by_broker(cell.read(place.at("in/sub/root/secret")));
    // The control: without the right to write there it is the host's own link.
    let cell = place.cell(&[("r", "in/sub/root")]);
    assert_eq!(cell.read(place.at("in/sub/root/secret")).unwrap(), SECRET);
}

#[test]
fn a_denial_holds_by_every_name_that_the_hosts_links_give() {
    let place = Place::new();
    fs::create_dir_all(place.at("in/keys/deep")).unwrap();
    fs::write(place.at("in/keys/key"), SECRET).unwrap();
    fs::write(place.at("in/a.pem"), SECRET).unwrap();
    // The denials are spelt through links, one of them in the middle of the way.
    symlink("in", place.at("alias")).unwrap();
    symlink("keys", place.at("in/k")).unwrap();
    let denials = [("!rw", "alias/keys"), ("!rw", "alias/*.pem")];
    let cell = place.cell(&[("rw", "in"), denials[0], denials[1]]);
    // The control: by the text alone nothing is denied.
    assert_eq!(cell.read(place.at("in/public")).unwrap(), PUBLIC);
    for rest in ["in/keys/key", "in/k/key", "in/a.pem"] {
        refused(&cell, &place, rest);
    }
    assert_eq!(cell.names(place.at("in")), ["k link", "public file"]);
    by_broker(cell.write(place.at("in/keys/new"), b"x"));
    by_broker(cell.on("exists", place.at("in/keys/none")));
    by_broker(cell.rename(place.at("in/keys"), place.at("in/mine")));
    by_broker(cell.rename(place.at("in/a.pem"), place.at("in/mine")));
    // A handle that was opened before.
    let handle = cell.handle(place.at("in/public"), "r");
    cell.0.set_policy(place.policy(&[("rw", "in"), ("!rw", "alias/public")]).into());
    by_broker(cell.ask("read", &[("handle", handle)]));
}

/// A folder that the cell may take away stands between a denial and where it leads.
#[test]
fn a_denial_does_not_go_with_a_folder_on_its_way() {
    for rename in [false, true] {
        let place = Place::new();
        fs::create_dir_all(place.at("in/keys")).unwrap();
        fs::create_dir(place.at("in/sub")).unwrap();
        fs::write(place.at("in/keys/key"), SECRET).unwrap();
        symlink("in/sub/../keys", place.at("alias")).unwrap();
        let cell = place.cell(&[("rw", "in"), ("!rw", "alias")]);
        refused(&cell, &place, "in/keys/key");
        let sub = place.at("in/sub");
        if rename {
            cell.rename(sub, place.at("in/other")).unwrap();
        } else {
            cell.ask("remove", &[("path", text(sub)), ("directory", Value::Bool(true))]).unwrap();
        }
        refused(&cell, &place, "in/keys/key");
        by_broker(cell.rename(place.at("in/keys"), place.at("in/mine")));
    }
}

#[test]
fn a_link_that_a_denial_goes_through_stays_where_it_is() {
    let place = Place::new();
    fs::create_dir_all(place.at("in/ways/more")).unwrap();
    symlink("ways/over", place.at("in/way")).unwrap();
    symlink("../../out", place.at("in/ways/over")).unwrap();
    let cell = place.cell(&[("rw", "in"), ("r", "out"), ("!r", "in/way/secret")]);
    for rest in ["in/way", "in/ways/over", "in/ways"] {
        by_broker(cell.rename(place.at(rest), place.at("in/moved")));
        by_broker(cell.rename(place.at("in/public"), place.at(rest)));
    }
    by_broker(cell.on("remove", place.at("in/way")));
    by_broker(cell.on("remove", place.at("in/ways/over")));
    by_broker(cell.read(place.at("out/secret")));
    cell.on("remove", place.at("in/public")).unwrap();
}

#[test]
fn what_is_denied_by_its_real_name_is_not_moved_to_be_read() {
    let place = Place::new();
    symlink("in", place.at("data")).unwrap();
    fs::write(place.at("in/key"), SECRET).unwrap();
    let cell = place.cell(&[("rw", "data"), ("!r", "in/key")]);
    by_broker(cell.read(place.at("data/key")));
    by_broker(cell.rename(place.at("data/key"), place.at("data/mine")));
    cell.rename(place.at("data/public"), place.at("data/mine")).unwrap();
}
