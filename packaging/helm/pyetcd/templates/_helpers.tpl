{{- define "pyetcd.name" -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "pyetcd.selector" -}}
app.kubernetes.io/name: pyetcd
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "pyetcd.labels" -}}
{{ include "pyetcd.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "pyetcd.domain" -}}
{{ include "pyetcd.name" . }}-peers.{{ .Release.Namespace }}.svc.{{ .Values.clusterDomain }}
{{- end -}}

{{/* The members that begin the cluster: name=peer URL, … */}}
{{- define "pyetcd.initialCluster" -}}
{{- $name := include "pyetcd.name" . -}}
{{- $domain := include "pyetcd.domain" . -}}
{{- $members := list -}}
{{- range $at := until (int .Values.initialSize) -}}
{{- $members = append $members (printf "%s-%d=http://%s-%d.%s:2380" $name $at $name $at $domain) -}}
{{- end -}}
{{- join "," $members -}}
{{- end -}}

{{- define "pyetcd.client" -}}
http://{{ include "pyetcd.name" . }}.{{ .Release.Namespace }}.svc.{{ .Values.clusterDomain }}:2379
{{- end -}}

{{/* Where those that begin the cluster, and then all, are asked. */}}
{{- define "pyetcd.asked" -}}
{{- $name := include "pyetcd.name" . -}}
{{- $domain := include "pyetcd.domain" . -}}
{{- $urls := list (include "pyetcd.client" .) -}}
{{- range $at := until (int .Values.initialSize) -}}
{{- $urls = append $urls (printf "http://%s-%d.%s:2379" $name $at $domain) -}}
{{- end -}}
{{- join "," $urls -}}
{{- end -}}

{{- define "pyetcd.image" -}}
image: "{{ .Values.image.repository }}:{{ .Values.image.tag }}"
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end -}}

{{- define "pyetcd.pod" -}}
automountServiceAccountToken: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- end -}}
