"""Which names end an e-mail address, and which of them are placeholders."""

from __future__ import annotations

# All of the countries' domains, and the generic ones under which people have mail.
_COUNTRIES = (
    "ac ad ae af ag ai al am ao aq ar as at au aw ax az ba bb bd be bf bg bh bi bj bm bn bo br bs bt bw by bz ca cc cd cf cg ch "
    "ci ck cl cm cn co cr cu cv cw cx cy cz de dj dk dm do dz ec ee eg er es et eu fi fj fk fm fo fr ga gd ge gf gg gh gi gl "
    "gm gn gp gq gr gs gt gu gw gy hk hm hn hr ht hu id ie il im in io iq ir is it je jm jo jp ke kg kh ki km kn kp kr kw ky "
    "kz la lb lc li lk lr ls lt lu lv ly ma mc md me mg mh mk ml mm mn mo mp mq mr ms mt mu mv mw mx my mz na nc ne nf ng ni "
    "nl no np nr nu nz om pa pe pf pg ph pk pl pm pn pr ps pt pw py qa re ro rs ru rw sa sb sc sd se sg sh si sk sl sm sn so "
    "sr ss st su sv sx sy sz tc td tf tg th tj tk tl tm tn to tr tt tv tw tz ua ug uk us uy uz va vc ve vg vi vn vu wf ws ye "
    "yt za zm zw"
)
_GENERIC = (
    "com org net edu gov mil int info biz name pro mobi aero asia cat coop jobs museum post tel travel xxx arpa "
    "academy agency app art associates bank bar berlin best bio blog boston build business buzz cafe capital care careers cash "
    "center chat church city click clinic cloud club codes coffee college community company computer consulting contractors "
    "cool coach cologne croatia cymru dental design dev digital direct directory dog domains earth education email energy "
    "engineer engineering enterprises estate eus events exchange expert family farm finance fit foundation frl fun fund "
    "fyi gal games gent global gmbh gold graphics group guide guru hamburg health hockey holdings hospital host house icu "
    "immo inc industries ink institute insure international investments ist istanbul kaufen kids kitchen kiwi koeln land "
    "law lawyer legal life limited link live llc loan london ltd love ltda luxe madrid marketing mba media melbourne "
    "memorial miami moda moe money monster nagoya network news ngo ninja nrw nyc okinawa one ong online page paris partners "
    "parts party photo photography photos physio pics pizza place plus porn press productions properties pub quebec realty "
    "rent report rest restaurant review reviews rip rocks ruhr run saarland sale school science scot services sexy shop "
    "show site ski social software solar solutions space store stream studio style support surf swiss sydney systems taipei "
    "tax team tech technology tips tirol today tokyo tools top tours town trade training tube university uno vegas ventures "
    "vet video vip vision vlaanderen wales watch web website wien wiki win work works world wtf xyz yoga yokohama zone"
)
_TOP_LEVEL = frozenset((*_COUNTRIES.split(), *_GENERIC.split()))

# RFC 2606 and RFC 6761, and what people write instead.
_RESERVED = frozenset({"example", "test", "invalid", "localhost", "local"})
_PLACEHOLDERS = frozenset(
    [
        "example",
        "domain",
        "yourdomain",
        "mydomain",
        "somedomain",
        "yourcompany",
        "company",
        "yoursite",
        "mysite",
        "website",
        "somewhere",
        "test",
        "foo",
        "bar",
        "baz",
        "foobar",
        "acme",
        "contoso",
        "fabrikam",
        "email",
        "host",
        "server",
        "sample",
        "xxx",
        "xyz",
        "abc",
        "placeholder",
    ]
)


def is_top_level(label: str) -> bool:
    """In one case throughout, or like a word: q@k.mT is a product of matrices, and no mail to Malta."""
    return label.lower() in _TOP_LEVEL and (label.islower() or label.isupper() or label.istitle())


def is_placeholder_domain(domain: str) -> bool:
    """Whether it is nobody's, or stands for one that the reader has to fill in."""
    labels = domain.lower().split(".")
    return labels[-1] in _RESERVED or "example" in labels or labels[-2] in _PLACEHOLDERS
