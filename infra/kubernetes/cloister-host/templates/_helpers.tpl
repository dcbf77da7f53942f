{{- define "cloister.name" -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- end }}

{{- define "cloister.selector" -}}
app.kubernetes.io/name: cloister-host
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "cloister.labels" -}}
{{ include "cloister.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "cloister.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ default (include "cloister.name" .) .Values.serviceAccount.name }}
{{- else }}{{ required "serviceAccount.name is needed where none is created" .Values.serviceAccount.name }}{{ end }}
{{- end }}

{{- define "cloister.scheme" -}}
{{- if .Values.tls.elsewhere }}HTTP{{ else }}HTTPS{{ end }}
{{- end }}

{{/* The Secret that the unseal provider reads, if it reads one. */}}
{{- define "cloister.unsealSecret" -}}
{{- if eq .Values.unseal.provider "pkcs11" }}{{ .Values.unseal.pkcs11.pinSecret.name }}
{{- else if eq .Values.unseal.provider "shamir" }}{{ .Values.unseal.shamir.sharesSecret }}{{ end }}
{{- end }}

{{/* What must be said, and what must not be combined: refused before anything is applied. */}}
{{- define "cloister.check" -}}
{{- if and .Values.tls.elsewhere .Values.tls.secretName }}{{ fail "tls: either secretName or elsewhere" }}{{ end }}
{{- if not (or .Values.tls.elsewhere .Values.tls.secretName) }}{{ fail "tls: name a Secret, or say elsewhere" }}{{ end }}
{{- if regexMatch "://[^/@]*:[^/@]*@" .Values.database.url }}{{ fail "database.url must not hold a password: use passwordSecret" }}{{ end }}
{{- if eq .Values.unseal.provider "shamir" }}
{{- if not (and .Values.unseal.shamir.sharesSecret .Values.unseal.shamir.shares) }}{{ fail "unseal.shamir needs sharesSecret and shares" }}{{ end }}
{{- else if and (eq .Values.unseal.provider "pkcs11") (not (and .Values.unseal.pkcs11.module .Values.unseal.pkcs11.token .Values.unseal.pkcs11.pinSecret.name)) }}{{ fail "unseal.pkcs11 needs module, token and pinSecret" }}{{ end }}
{{- if and .Values.autoscaling.enabled (gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) }}{{ fail "autoscaling: minReplicas is over maxReplicas" }}{{ end }}
{{- if lt (int .Values.drain.graceSeconds) (add (int .Values.drain.seconds) 10 | int) }}{{ fail "drain.graceSeconds must be ten seconds longer than drain.seconds" }}{{ end }}
{{- if and .Values.egressTrustAnchors.files (not .Values.egressTrustAnchors.configMap) }}{{ fail "egressTrustAnchors: files of which configMap?" }}{{ end }}
{{- end }}
