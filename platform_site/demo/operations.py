"""The GraphQL documents that the demo sends; they are examples, too. Each has one field at its top."""

from __future__ import annotations

_SESSION = "__typename ... on Session { accessToken refreshToken expiresAt user { email } }"
_REFUSED = "... on OperationInfo { messages { kind code field message } }"
_REFUSED_OR_TOO_MUCH = f"{_REFUSED} ... on QuotaExceeded {{ code message }}"

SIGN_UP = f"mutation ($input: SignupInput!) {{ signup(input: $input) {{ {_SESSION} {_REFUSED} }} }}"
REFRESH = f"mutation ($input: RefreshTokenInput!) {{ refreshToken(input: $input) {{ {_SESSION} {_REFUSED} }} }}"

LOG_IN = f"mutation ($input: LoginInput!) {{ login(input: $input) {{ {_SESSION} {_REFUSED} }} }}"

START_UPLOAD = f"""
mutation ($input: StartUploadInput!) {{
  startUpload(input: $input) {{
    __typename
    ... on UploadTicket {{ url headers upload {{ id }} }}
    {_REFUSED_OR_TOO_MUCH}
  }}
}}"""

CREATE_DATASET = f"""
mutation ($input: CreateDatasetInput!) {{
  createDataset(input: $input) {{
    __typename
    ... on DatasetVersion {{ id status }}
    {_REFUSED_OR_TOO_MUCH}
  }}
}}"""

DATASET_EVENTS = """
subscription ($id: ID!, $after: Int!) {
  datasetVersionEvents(id: $id, after: $after) {
    __typename
    sequence
    ... on StatusChanged { status reason }
    ... on StepProgressed { name stepStatus: status rowsIn rowsKept progress }
    ... on LogLine { level text }
  }
}"""

DATASET_VERSION = """
query ($id: ID!) {
  datasetVersion(id: $id) {
    status errorCode errorMessage rowsIn rowsKept
    recipe { format }
    splits { name rows }
    steps { name rowsDropped reasons { key count } }
    rejections(first: 1) { totalCount }
  }
}"""

PREVIEW = """
query ($id: ID!, $split: SplitName!) {
  datasetVersion(id: $id) { preview(split: $split, first: 100) { prompt completion text messages } }
}"""

START_RUN = f"""
mutation ($input: StartTrainingRunInput!) {{
  startTrainingRun(input: $input) {{
    __typename
    ... on TrainingRun {{ id name baseModel {{ name }} config {{ learningRate }} }}
    {_REFUSED_OR_TOO_MUCH}
  }}
}}"""

RUN_EVENTS = """
subscription ($id: ID!, $after: Int!) {
  trainingRunEvents(id: $id, after: $after) {
    __typename
    sequence
    at
    ... on StatusChanged { status reason }
    ... on StepLogged { step totalSteps loss tokens tokensPerSecond }
    ... on Evaluated { step evalLoss }
    ... on CheckpointSaved { step }
    ... on LogLine { level text }
  }
}"""

RUN = """
query ($id: ID!) {
  trainingRun(id: $id) {
    status errorCode errorMessage startedAt finishedAt step
    adapter { id name version digest sizeBytes testLoss baseTestLoss }
  }
}"""

UNFINISHED_RUNS = "query { trainingRuns(status: [QUEUED, RUNNING]) { edges { node { id } } } }"
NEWEST_VERSIONS = "query { datasets { edges { node { latestVersion { id status } } } } }"
CANCEL_RUN = f"mutation ($id: ID!) {{ cancelTrainingRun(id: $id) {{ __typename {_REFUSED} }} }}"
CANCEL_VERSION = f"mutation ($id: ID!) {{ cancelDatasetVersion(id: $id) {{ __typename {_REFUSED} }} }}"

_PREDICTION = "text completionTokens adapterDigest baseModel seconds"

PREDICT = f"""
mutation ($input: PredictInput!) {{
  predict(input: $input) {{
    __typename
    ... on Prediction {{ {_PREDICTION} }}
    {_REFUSED_OR_TOO_MUCH}
  }}
}}"""

GENERATE = f"""
subscription ($input: PredictInput!) {{
  generate(input: $input) {{ sequence text prediction {{ {_PREDICTION} }} }}
}}"""
