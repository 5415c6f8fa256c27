//! Names: one grammar, and texts that read back as what they were.

use gaffer_core::name::{JobId, JobName, Name, Place, Rule, RunId, Slot};
use proptest::prelude::*;

#[test]
fn the_first_dot_separates_session_and_job() {
    let id = JobId::parse("a.b.c").expect("a job");
    assert_eq!((id.session.as_str(), id.job.as_str()), ("a", "b.c"));
    let id = JobId::parse("web").expect("a job");
    assert_eq!(id.to_string(), "default.web");
    let shop = Name::parse("shop").expect("a name");
    assert_eq!(
        JobId::parse_in("web", &shop).expect("a job").to_string(),
        "shop.web"
    );
}

#[test]
fn a_bad_name_says_what_and_why() {
    for (text, rule) in [
        ("", Rule::Empty),
        ("-x", Rule::Character('-')),
        ("a b", Rule::Character(' ')),
        ("a/b", Rule::Character('/')),
        ("ü", Rule::Character('ü')),
        ("12", Rule::AllDigits),
        ("a.b", Rule::Dot),
    ] {
        assert_eq!(Name::parse(text).expect_err(text).rule, rule, "{text}");
    }
    assert_eq!(
        Name::parse(&"x".repeat(65)).expect_err("long").rule,
        Rule::TooLong
    );
    assert!(Name::parse(&"x".repeat(64)).is_ok());
    for (text, rule) in [
        ("a..b", Rule::EmptyPart),
        (".a", Rule::EmptyPart),
        ("web.2", Rule::AllDigits),
    ] {
        assert_eq!(JobName::parse(text).expect_err(text).rule, rule, "{text}");
    }
    assert!(JobName::parse("2.web").is_ok());
    let said = Name::parse("a b").expect_err("bad").to_string();
    assert_eq!(
        said,
        "`a b` is not a name: ` ` is not allowed; use letters, digits, `_`, and after the first character `+` and `-`"
    );
}

#[test]
fn slots_and_runs_have_one_text() {
    for text in ["shop.web.1", "shop.web.1~1", "shop.b.c.12", "shop.web/7"] {
        assert_eq!(Slot::parse(text).expect(text).to_string(), text);
    }
    for text in [
        "shop.web",
        "shop.web.0",
        "shop.web.01",
        "shop.web.1~2",
        "shop.web/0",
        "web",
        "shop.web.x",
    ] {
        assert!(Slot::parse(text).is_err(), "{text}");
    }
    assert_eq!(RunId { epoch: 1, n: 5 }.to_string(), "1115");
    assert_eq!(RunId::parse("@1115").expect("a run"), RunId { epoch: 1, n: 5 });
    for text in ["", "1", "11", "112", "11151", "2011", "u1", "@", "911111111111"] {
        assert!(RunId::parse(text).is_err(), "{text}");
    }
}

fn job() -> impl Strategy<Value = JobId> {
    "[A-Za-z_][A-Za-z0-9_+-]{0,63}(\\.[A-Za-z_][A-Za-z0-9_+-]{0,20}){1,3}"
        .prop_map(|text| JobId::parse(&text).expect("by the grammar"))
}

proptest! {
    #[test]
    fn every_slot_reads_back_as_what_it_was(job in job(), n in 1u32.., lane in 0u8..2, one_off in 1u64..) {
        for place in [Place::Instance { n, lane }, Place::OneOff(one_off)] {
            let slot = Slot { job: job.clone(), place };
            prop_assert_eq!(Slot::parse(&slot.to_string()), Ok(slot));
        }
    }

    #[test]
    fn run_ids_sort_as_text_as_they_do_as_numbers(a in any::<(u32, u32)>(), b in any::<(u32, u32)>()) {
        let [a, b] = [a, b].map(|(epoch, n)| RunId { epoch, n });
        prop_assert_eq!(RunId::parse(&a.to_string()), Ok(a));
        prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
    }

    #[test]
    fn no_text_makes_the_parsers_panic(text in "\\PC{0,40}") {
        let _ = (JobId::parse(&text), Slot::parse(&text), RunId::parse(&text));
    }
}
