"""Each kind in the forms it has in code, JSON, and prose, exactly as far as it goes, and what only looks like it."""

from __future__ import annotations

import base64

import pyarrow as pa
import pytest

from datasets.pipeline.pii import KINDS, SECRETS, Findings, Kind, find

HEX = "9f86d081884c7d659a2feaa0c55ad015"
MIXED = "aB3dE5gH7jK9mN2pQ4sT6vW8xY0zC1fG3hJ5kL7nP9rS2tU4wX6yZ8bD0eF2gH4jK6mN8pQ0rS3tU5vW7xY9zA1bC3dE5fG7"
HEADER = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').decode().rstrip("=")
PAYLOAD = base64.urlsafe_b64encode(b'{"sub":"248289761001","iss":"login"}').decode().rstrip("=")
BASIC = base64.b64encode(b"carol:t0psecretWord").decode()


def parts(text: str) -> tuple[str, list[str]]:
    """What is between « and » is to be found; ¦ goes, so that this file holds nothing that looks like a token."""
    text = text.replace("¦", "")
    inside = [piece.split("»")[0] for piece in text.split("«")[1:]]
    return text.replace("«", "").replace("»", ""), inside


def found(text: str) -> list[tuple[str, str]]:
    return [(finding.kind.value, text[finding.start : finding.end]) for finding in find(pa.array([text]))]


FOUND = {
    Kind.PRIVATE_KEY: [
        f"-----BEGIN RSA PRIVATE KEY-----\n«MIIE{MIXED[:60]}»\n«qrst==»\n-----END RSA PRIVATE KEY-----\n",
        f'{{"private_key": "-----BEGIN PRIVATE KEY-----\\n«MIIE{MIXED[:60]}»\\n«abcd12=»\\n-----END PRIVATE KEY-----\\n"}}',
        f'KEY = (\n    "-----BEGIN EC PRIVATE KEY-----\\n"\n    "«MHcC{MIXED[:60]}»\\n"\n    "-----END EC PRIVATE KEY-----"\n)',
        f"-----BEGIN OPENSSH PRIVATE KEY-----\n«b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAA»\n«{MIXED[:64]}»",  # cut off
    ],
    Kind.AWS_ACCESS_KEY: ["key = '«AKIA¦Z7VRSQJKD2P3QMX4»'", "«ASIA¦Z7VRSQJKD2P3QMX4»\n", '"\\n«AKIA¦Z7VRSQJKD2P3QMX4»\\n"'],
    Kind.AWS_SECRET_KEY: [
        "aws_secret_access_key = «¦Kq8vT2xW5zB7nM1pL4sD6fG9hJ0aC3eR8uYtI/+»\n".replace("»", "o»"),
        'AWS_SECRET_ACCESS_KEY="«Kq8vT2xW5zB7nM1pL4sD6fG9hJ0aC3eR8uYtI/+o»"',
    ],
    Kind.GITHUB_TOKEN: [
        f"git clone https://x:«ghp_¦{MIXED[:36]}»@github.com/a/b",
        f"token «gho_¦{MIXED[:36]}».",
        f"«github_pat_¦{MIXED[:22]}_{MIXED[:59]}»",
    ],
    Kind.GITLAB_TOKEN: [f"PRIVATE-TOKEN: «glpat-¦{MIXED[:20]}»"],
    Kind.SLACK_TOKEN: [
        "«xoxb-¦263594206564-2343594206574-FGqddMF8t08v8N7Oq4i57vs1»",
        f"https://hooks.slack.com/services/«T0¦3FG7KLM/B04HJ8NPQ/{MIXED[:24]}»",
    ],
    Kind.STRIPE_KEY: [f"stripe.api_key = '«sk_¦live_{MIXED[:24]}»'", f"«rk_¦live_{MIXED[:24]}»", f"«whsec_¦{MIXED[:32]}»"],
    Kind.GOOGLE_KEY: [f"?key=«AIza¦{MIXED[:35]}»&q", f"«GOCSPX-¦{MIXED[:28]}»"],
    Kind.ANTHROPIC_KEY: [f"ANTHROPIC_API_KEY=«sk-ant-¦api03-{MIXED[:90]}»"],
    Kind.OPENAI_KEY: [f"openai.api_key = '«sk-¦{MIXED[:48]}»'", f"«sk-proj-¦{MIXED[:60]}»"],
    Kind.HUGGING_FACE_TOKEN: [f"login(token='«hf_¦{MIXED[:34]}»')"],
    Kind.NPM_TOKEN: [f"//registry.npmjs.org/:_authToken=«npm_¦{MIXED[:36]}»"],
    Kind.PYPI_TOKEN: [f"password: «pypi-¦AgEIcHlwaS5vcmc{MIXED[:60]}»"],
    Kind.TWILIO_KEY: [f"«SK¦{HEX}»", f"TWILIO_AUTH_TOKEN = '«{HEX}»'"],
    Kind.SENDGRID_KEY: [f"«SG.¦{MIXED[:22]}.{MIXED[:43]}»"],
    Kind.AZURE_KEY: [f"DefaultEndpointsProtocol=https;AccountName=a;AccountKey=«¦{MIXED[:86]}==»;EndpointSuffix=core"],
    Kind.JWT: [f"cookie = '«¦{HEADER}.{PAYLOAD}.{MIXED[:43]}»'", f"Authorization: Bearer «{HEADER}.{PAYLOAD}.{MIXED[:43]}»"],
    Kind.URL_PASSWORD: [
        "postgres://app:«Zu7-vier.acht»@db.internal:5432/app",
        'redis = "redis://:«q9w8e7r6t5»@10.0.0.3/0"',
        "https://bob:«Tr0ub4dor&3»@git.acme-corp.io/x.git",
    ],
    Kind.AUTHORIZATION: [f"Authorization: Bearer «{MIXED[:40]}»", f"-H 'Authorization: Basic «{BASIC}»'"],
    Kind.PASSWORD: [
        "password = '«hunter2!»'",
        'PASSWORD="«Gr8-Wall»"',
        "conf['db_password'] = \"«k7Tq_99z»\"",
        '{"content":"password: \\"«Pa55-w0rt»\\""}',
        "DB_PASSWORD=«Winter2024!»\n",
        "def f(password: str = '«s3cr3t-Pa»'): ...",
        "if user.pwd == '«0p3nS3same»':",
    ],
    Kind.API_KEY: [
        f"api_key: '«{HEX}»'",
        f"const apiKey = \"«{MIXED[:30]}»\"",
        f"SECRET_KEY = b'«{MIXED[:50]}»'",
        f"export CLIENT_SECRET=«{MIXED[:24]}»\n",
        f'os.environ.get("ACCESS_TOKEN", "«{MIXED[:32]}»")',
        "requests.get(url, params={'token': '«550e8400-e29b-41d4-a716-446655440000»'})",
    ],
    Kind.IBAN: [
        "Konto «DE89 3704 0044 0532 0130 00».",
        "iban='«GB82WEST12345698765432»'",
        "«NO9386011117947» paid",
        '"\\n«FR1420041010050500013M02606»"',
        "«DE61999012345678901234»",  # in which 999 is no sign of ours
        "zahle an «CH9300762011623852957» 20 EUR",
    ],
    Kind.CODICE_FISCALE: ["CF: «RSSMRA85T10A562S»", "«MRTMTT91D08F205J»"],
    Kind.INSEE: ["nir = '«255081416802538»'", "«2 55 08 14 168 025 38»", "«2550814168025 38»"],
    Kind.NIE: ["nie «X1234567L»", "«Z-1234567-R»"],
    Kind.DNI: ["«12345678Z»", "dni: «12345678-Z»"],
    Kind.NINO: ["NI number «AB 12 34 56 C»", "nino=«JG103759A»"],
    Kind.CPF: ["«529.982.247-25»", "cpf = '«11144477735»'"],
    Kind.STEUER_ID: ["«86 095 742 719»", "Steuer-ID: «47036892816»", "steuerId = «65929970489»"],
    Kind.AADHAAR: ["«2341 2341 2346»", "aadhaar_number = «234123412346»"],
    Kind.BSN: ["BSN: «111222333»", "burgerservicenummer 12, «123456782»"],
    Kind.SSN: ["ssn = '«536-90-4399»'", "My social security number is «536904399».", "SSN «536 90 4399»", "«536-90-4399»"],
    Kind.PAYMENT_CARD: [
        "card = «4111111111111111»",
        "«4111 1111 1111 1111»",
        "'«5500-0000-0000-0004»'",
        "amex «3782 822463 10005»",
        "«378282246310005»",
        "«6011000990139424», then",
        "«30569309025904»",
        "«3530111333300000»",
        "visa «4222222222222»",
        '{"pan":«2223003122003222»}',
    ],
    Kind.EMAIL: [
        "Author: Jane <«jane.roe@acme-corp.de»>",
        "mailto:«JOE+news@Mail.Web.de».",
        '"\\n«foo.bar@gmail.com»\\n"',
        '"\\u003c«joe@web.de»\\u003e"',
        "邮箱«wang@qq.com»。",
        "«a@b.co.uk».Next sentence",
        "x=(«ann_b-c@uni-bonn.de»,)",
        "«joe@mail.ru»,«sue@mail.ru»",
        "printf(\"%s\",\"«me@jo.me»\")",
    ],
    Kind.IPV4: [
        "ssh root@«93.184.216.34»",
        "http://«93.184.216.34»:8080/x",
        "remote_addr=\"«203.1.14.200»\"",
        "«93.184.216.34»/24",
        "ip: «12.9.3.4».",
    ],
    Kind.IPV6: ["[«2606:2800:220:1:248:1893:25c8:1946»]:443", "host «2a00:1450:4001:81b::200e»,", "«2A02:8109:9ec0::»/48"],
    Kind.PHONE: [
        "call «+49 30 901820».",
        "'«+14155552671»'",
        "«+1 (415) 555-2671» x5",
        "«(415) 555-2671»",
        "«415-555-2671»",
        "1. «415-555-2671»",
        "in 2024 («415) 555-2671»".replace("(«", "«("),
        "Phone: «415.555.2671»",
        'user_phone = "«4155552671»"',
        '{"mobile": «4155552671»}',
        "Tel. «030 901820» bitte",
        "call me at «020 7946 0857» at 10",
        "fax «06 12 34 56 78»",
        "«+33 1 42 68 53 00» and",
        "«+91 98765 43210»",
    ],
}  # fmt: skip


@pytest.mark.parametrize(("kind", "written"), [(kind, text) for kind, texts in FOUND.items() for text in texts])
def test_found_as_far_as_it_goes(kind: Kind, written: str) -> None:
    text, inside = parts(written)
    assert [value for code, value in found(text) if code == kind] == inside
    assert {code for code, _ in found(text)} == {kind.value}
    for padded in (f"é€\U0001f600 {text}", f"{text}\n\u2028é"):
        assert [value for _, value in found(padded)] == inside


def test_there_is_a_form_of_each_kind() -> None:
    assert set(FOUND) == set(KINDS) - {Kind.PERSON_NAME}


NOTHING = [
    ("@property\n@functools.cache\ndef f(self): ...", "decorators"),
    ("y = W@x.T + a@b.shape + q@k.mT + x@y.at[0]", "matrix products"),
    ("icon@2x.png and lib@1.2.3", "names of files and packages"),
    ("git@github.com:org/repo.git", "a repository"),
    ("user@example.com, a@b.example.org, joe@host.test, x@localhost", "names set aside by RFC 2606"),
    ("noreply@github.com, you@gmail.com, username@gmail.com, a@yourdomain.com", "machines and placeholders"),
    ("a@@b.com @ c.com user@ @host.com a@b", "no addresses"),
    ("foo@bar_baz.com a@-b.com a@b..com", "no host names"),
    ("v1.2.3.4 version 93.184.216.34 pkg==11.22.33.144 1.3.6.1.4.1.311.2", "versions and object identifiers"),
    ("127.0.0.1 10.1.2.3 192.168.0.1 172.16.5.4 169.254.1.1 0.0.0.0 255.255.255.255 224.0.0.1", "not of the Internet"),
    ("192.0.2.1 198.51.100.7 203.0.113.9 2001:db8::1 ::1 fe80::1", "documentation and loopback"),
    ("8.8.8.8 1.1.1.1 256.1.1.1 93.184.216.034 1.2.3 3.4.1.2 120.0.0.0", "resolvers, nonsense, and sections"),
    ("x[2600::5] std::vector 2024:05:06 12:30:45 a::b::c", "slices, scopes, and times"),
    (f"sha256:{HEX * 2} md5={HEX} commit 9f86d081884c7d659a2feaa0c55ad015a1b2c3d4", "digests"),
    ("550e8400-e29b-41d4-a716-446655440000 urn:uuid:41111111-1111-1111-8111-111111111111", "UUIDs"),
    ("2024-01-15T12:30:45.123456Z 20240115123045 1700000000 1700000000000 1700000000000000", "times"),
    ("pi = 3.141592653589793; e = 2.718281828459045; x = 0.4111111111111111; y = 4.111111111111111e15", "constants"),
    ("4111111111111112 4111 1111 1111 1112 9999999999999995 0000 0000 0000 0000", "no cards"),
    ("0x4111111111111111 4_111_111_111_111_111 a4111111111111111 4111111111111111a 4111111111111111_", "within other words"),
    ("14111111111111111111111", "within a longer number"),
    ("1234567890123 4222222222222", "thirteen digits without a word"),
    ("000-12-3456 666-12-3456 900-12-3456 536-00-4399 536-90-0000 123-45-6789 078-05-1120", "never issued"),
    ("536904399 536 90 4399 1536-90-4399 536-90-43991 536-90-4399-1", "no SSN without a word or within something else"),
    ("111222333 123456782 11144477735 47036892816 234123412346", "bare digits without a word"),
    ("111.111.111-11 529.982.247-26 2341 2341 2347 1341 2341 2346", "check digits and repetition"),
    ("DE89370400440532013001 DE8937040044053201300 XX89370400440532013000 GB82WEST1234569876543", "no IBAN"),
    ("ADE89370400440532013000 DE89370400440532013000X", "an IBAN within a word"),
    ("12345678A X1234567A 1.12345678Z+3 BG123456A QQ123456C AB123456E", "letters that do not fit"),
    ("RSSMRA85T10A562T RSSMRA85T10A562", "no codice fiscale"),
    ("tel 12, call f(1, 2), phone_id[3]", "too few digits"),
    ("callback(4155552671) recall 4155552671", "no word for telephones"),
    ("+1 415 555 0123 (415) 555-0199 +35236450.6 x+14155552671 +12 +999 123 456 789", "fiction, decimals, and sums"),
    ("reach('192.168.0.1') phone 1.2.3.4", "addresses beside a word"),
    ("AKIAIOSFODNN7EXAMPLE wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "the provider's example"),
    (f"ghp_{'x' * 36} sk-{'0' * 48} hf_{'a' * 34} sk-your-api-key-here sk_live_...", "to be filled in"),
    (f"my_ghp_{MIXED[:36]} xghp_{MIXED[:36]} ghp_{MIXED[:20]}", "within a name, or too short"),
    ("eyJhbGciOiJub3RoaW5n.eyJhbGciOiJub3RoaW5n.aaaaaaaaaaaaaaaaaaaa", "no JWT"),
    ("password = os.environ['DB_PASSWORD']; password = getpass(); password=None; password='changeme'", "references"),
    ("password = 'password'; pwd = 'your_password'; passwd = '<password>'; PASSWORD = '${PASSWORD}'", "placeholders"),
    ("password_field = 'user_password'; PASSWORD_KEY='password-hash'; password: 'Enter your password'", "names and texts"),
    ("tokenizer = AutoTokenizer('bert-base-uncased2'); tokens = ['abc123def456ghi789']", "other words"),
    ("token = tokens[0]; secret = module2.get_default_secret; api_key=api_key2_for_testing_it", "code"),
    ("token_type: 'bearer', secret_name = 'projects/p/secrets/s', ACCESS_TOKEN_URL='https://a.b/oauth2/token1'", "names"),
    ("postgres://user:password@localhost/db http://{user}:{pw}@h redis://a:$PW@h http://a:b@c", "no passwords"),
    ("http://host:8080/@me https://a.b/c:d@e scheme://a:b", "no user"),
    ("Bearer token, bearer authentication_required_for_all, Basic authentication, Basic QWxhZGRpbg==", "prose"),
    (f"-----BEGIN PUBLIC KEY-----\n{MIXED[:60]}\n-----END PUBLIC KEY-----", "a public key"),
    ("-----BEGIN RSA PRIVATE KEY-----\n...\n-----END RSA PRIVATE KEY-----", "a private key that is left out"),
    ("EMAIL_kfbpjcoamhdl PHONE_kfbpjcoamhdl@gmail.com password='PASSWORD_kfbpjcoamhdl' phone 999351234567890", "masked"),
    ("\\1415-555-2671 '\\0415-555-2671'", "escapes of digits"),
    ("", "nothing"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "why"), NOTHING, ids=[why for _, why in NOTHING])
def test_not_found(text: str, why: str) -> None:
    assert found(text) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgres://bob:q9w8e7r6@mail.acme-corp.de/x", [("URL_PASSWORD", "q9w8e7r6")]),  # and no mail of q9w8e7r6
        (f"api_key = 'hf_{MIXED[:34]}'", [("HUGGING_FACE_TOKEN", f"hf_{MIXED[:34]}")]),
        ("card 378282246310005", [("PAYMENT_CARD", "378282246310005")]),
        ("phone: 4111111111111111", [("PAYMENT_CARD", "4111111111111111")]),
        ("pw='a' password='joe@mail.ru1'", [("PASSWORD", "joe@mail.ru1")]),
    ],
)
def test_of_spans_that_overlap_one_is_left(text: str, expected: list[tuple[str, str]]) -> None:
    assert found(text) == expected


def test_only_what_is_asked_for() -> None:
    texts = pa.array(["joe@mail.ru 4111111111111111 password='hunter2!'"])
    assert [finding.kind for finding in find(texts, frozenset({Kind.EMAIL}))] == [Kind.EMAIL]
    assert [finding.kind for finding in find(texts, SECRETS)] == [Kind.PASSWORD]
    assert find(texts).counts() == {Kind.PASSWORD: 1, Kind.PAYMENT_CARD: 1, Kind.EMAIL: 1}
    assert len(find(texts, frozenset())) == 0


def test_rows_nulls_and_chunks() -> None:
    rows = [None, "", "joe@mail.ru", None, "é joe@mail.ru", "joe@", "mail.ru", "4111 1111", " 1111 1111"]
    expected = [(2, 0, 11, Kind.EMAIL), (4, 2, 13, Kind.EMAIL)]
    arrays = [
        pa.array(rows),
        pa.array(rows, pa.large_string()),
        pa.array(["x", *rows])[1:],
        pa.chunked_array([rows[:3], [], rows[3:]], pa.string()),
        pa.array(rows).dictionary_encode(),
    ]
    for texts in arrays:
        assert [tuple(finding) for finding in find(texts)] == expected
    for empty in (pa.array([], pa.string()), pa.chunked_array([], pa.string()), pa.array([None, None], pa.string())):
        assert len(find(empty)) == 0
    assert isinstance(find(empty), Findings)


def test_an_operators_names_are_found_too() -> None:
    def names(texts: list[str]) -> list[list[tuple[int, int]]]:
        return [[(text.index("Ada"), text.index("Ada") + 3)] if "Ada" in text else [] for text in texts]

    texts = pa.array(["é Ada and joe@mail.ru", None, "nobody", "password='hunterAda!'"])
    assert [(finding.row, finding.start, finding.end, finding.kind) for finding in find(texts, names=names)] == [
        (0, 2, 5, Kind.PERSON_NAME),
        (0, 10, 21, Kind.EMAIL),
        (3, 10, 20, Kind.PASSWORD),
    ]
