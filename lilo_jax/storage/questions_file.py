import hashlib
import json


def fingerprint(splits):
    return hashlib.sha256(lines(splits)).hexdigest()


def lines(splits):
    return "".join(json.dumps({"split": s, "id": q.prompt}) + "\n" for s, qs in splits.items() for q in qs).encode()


def differences(stored, splits):
    return "" if stored == lines(splits) else "they differ"
