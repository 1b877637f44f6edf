"""HTTP: the gateway and its layers, request and response formats, problem details, the OpenAPI
document.
"""
