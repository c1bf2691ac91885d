"""The data of an installed devicevm: schemas, device classes, image recipes, guest sources, examples.

The folders here are links to the ones at the top of the checkout; a wheel holds copies. Read them by

    importlib.resources.files("devicevm.data") / "schemas" / "client.schema.json"
"""
