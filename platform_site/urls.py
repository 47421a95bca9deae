from django.contrib import admin
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from inference.server_page import server_page
from platform_site import views
from platform_site.graphql import GraphQLHTTPView, GraphQLStreamView
from platform_site.metrics import metrics
from platform_site.schema import schema

# Bearer tokens are not sent by browsers on their own, so the API needs no CSRF token.
graphql = GraphQLHTTPView.as_view(
    schema=schema, allow_queries_via_get=False, graphql_ide=None, multipart_uploads_enabled=False
)
stream = GraphQLStreamView.as_view(
    schema=schema,
    allow_queries_via_get=False,
    graphql_ide=None,
    subscription_protocols=("graphql-sse",),
    multipart_uploads_enabled=False,
)

urlpatterns = [
    path("", views.home),
    path("favicon.ico", views.icon),
    path("graphql", csrf_exempt(graphql)),
    path("graphql/stream", csrf_exempt(stream)),
    path("admin/inference/", admin.site.admin_view(server_page), name="inference_server"),
    path("admin/", admin.site.urls),
    path("metrics", metrics),
]

handler500 = "platform_site.views.broken"
