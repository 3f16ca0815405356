use super::*;

#[test]
fn as_ovs_ofctl_writes_it() {
    let flow = Flow {
        table: 203,
        priority: 100,
        cookie: 0x5,
        matching: Match::new()
            .exact(Field::EthType, 0x0800)
            .exact(Field::IpProto, 6)
            .exact(Field::Reg(0), 0x8001)
            .masked(Field::CtState, 0x20, 0x21)
            .masked(Field::IpSrc, 0x0a00_0000, 0xff00_0000),
        actions: vec![
            Action::set_bits(Bits::new(Field::Reg(1), 4, 4), 0xf),
            Action::Output(Port::Normal),
        ],
        goto: Some(204),
        ..Flow::default()
    };
    assert_eq!(
        flow.to_string(),
        "cookie=0x5,table=203,priority=100,tcp,reg0=0x8001,ct_state=-new+trk,nw_src=10.0.0.0/255.0.0.0 \
         actions=set_field:0xf0/0xf0->reg1,NORMAL,goto_table:204"
    );
}

#[test]
fn nothing_to_do_is_a_drop() {
    assert_eq!(
        Flow::default().to_string(),
        "cookie=0x0,table=0,priority=0 actions=drop"
    );
}

#[test]
fn bits_of_fields() {
    assert_eq!(Bits::all(Field::Reg(0)).to_string(), "reg0[]");
    assert_eq!(Bits::one(Field::Reg(0), 3).to_string(), "reg0[3]");
    assert_eq!(
        Bits::new(Field::XxReg(1), 32, 64).to_string(),
        "xxreg1[32..95]"
    );
    assert_eq!(Bits::all(Field::CtState).to_string(), "ct_state[0..7]");
}
